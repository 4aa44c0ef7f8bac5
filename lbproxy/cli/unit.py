"""The systemd unit that runs lbproxy with one configuration: printed by `lbproxy init --systemd`."""

import os
import pwd
import shutil
import sys

UNIT = """\
# systemd unit of lbproxy. As root:
#   lbproxy init --systemd{option} > /etc/systemd/system/lbproxy.service
#   systemctl daemon-reload && systemctl enable --now lbproxy
# Later `systemctl reload lbproxy` replaces the backends without a lost request.

[Unit]
Description=lbproxy ({config})
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} serve -c {config}
ExecReload={program} reload -c {config} --timeout 5m
WorkingDirectory={directory}
{user}
RuntimeDirectory=lbproxy
StateDirectory=lbproxy
LimitNOFILE=524288
TasksMax=infinity

# TERM goes to lbproxy alone: it ends its backends itself, when their requests are done.
KillMode=mixed
Restart=on-failure
RestartSec=1s
# Fed while control works and every worker is alive.
WatchdogSec=30s
# A backend that the kernel kills for memory is a crash, which lbproxy repairs; the service goes on.
OOMPolicy=continue
# 78: the configuration is not valid, and another start would not help.
RestartPreventExitStatus=78
# Longer than the --timeout of the reload above, and than proxy.shutdown_timeout.
TimeoutStartSec=6min
TimeoutStopSec={stop_s}s

{rights}PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""
_RIGHTS = """\
NoNewPrivileges=yes
# Ports below 1024, and nothing else.
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
"""


def unit(config: str, *, option: str, stop_s: float) -> str:
    """`config`: the absolute path of the file. `option`: the arguments of init that name it. `stop_s`: TimeoutStopSec.

    Whoever calls this is the user of the service.
    """
    is_root = os.geteuid() == 0
    return UNIT.format(
        option=option,
        program=" ".join(map(_quoted, own_command())),
        config=_quoted(config),
        directory=os.path.dirname(config).replace("%", "%%"),
        user="# It runs as root, which pool.user needs. Without pool.user: User=NAME\n"
        if is_root
        else f"User={_me()}\n",
        rights="" if is_root else _RIGHTS,
        stop_s=round(stop_s),
    )


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def own_command() -> list[str]:
    """The command that runs this lbproxy."""
    started = sys.argv[0]
    beside = os.path.join(os.path.dirname(sys.executable), "lbproxy")
    for program in (shutil.which(started) if os.path.basename(started) == "lbproxy" else None, beside):
        if program is not None and os.access(program, os.X_OK):
            return [os.path.abspath(program)]
    return [sys.executable, "-m", "lbproxy.cli.main"]


def _quoted(word: str) -> str:
    """A word of a command line of systemd (systemd.service(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(word) & set(" \t\"'\\") else escaped
