"""The configuration that most end-to-end tests begin with: a listener, and a pool "web" of a quick application.

Tables that a test adds go into `more`; keys of [proxy] and [pool.web] into `proxy` and `pool`.
"""


def web(pool: str = "", *, size: int = 2, workers: int = 1, command: str = "$brittle", **texts: str) -> str:
    """The text of a configuration. `health`, `reload` and `restart` replace keys of their tables; `proxy` and `more`
    are added."""
    health = texts.get("health", 'path = "/healthz"\ninterval = "500ms"')
    reload = texts.get("reload", 'min_ready = "0s"')
    restart = texts.get("restart", 'stop_timeout = "3s"')
    return f"""
[proxy]
workers = {workers}
{texts.get("proxy", "")}

[[listener]]
name = "public"
address = "127.0.0.1:$port"

[pool.web]
command = "{command}"
size = {size}
{pool}

[pool.web.health]
{health}

[pool.web.reload]
{reload}

[pool.web.restart]
{restart}

{texts.get("more", "")}
"""
