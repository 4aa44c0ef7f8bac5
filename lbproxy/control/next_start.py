"""The settings of the process as a whole that a reload cannot change: they wait for the next start of lbproxy."""

from lbproxy.settings import Settings


def waiting_keys(old: Settings, new: Settings, worker_count: int) -> list[str]:
    """The keys of the file in `new`. `worker_count`: of workers after the reload, which can add some but end none."""
    return [
        key
        for key, before, after in (
            ("proxy.control", old.proxy.control, new.proxy.control),
            ("proxy.pid_file", old.proxy.pid_file, new.proxy.pid_file),
            ("proxy.state_dir", old.proxy.state_dir, new.proxy.state_dir),
            ("proxy.control_group", old.proxy.control_group, new.proxy.control_group),
            ("proxy.user", old.proxy.user, new.proxy.user),
            ("log.format", old.log.format, new.log.format),
            ("proxy.workers", worker_count, new.proxy.workers),
        )
        if before != after
    ]
