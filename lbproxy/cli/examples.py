"""Examples for the help of each command: commands that can be typed as they stand.

One table, so that a command gets its examples by its name (main.py). A test parses every line.
"""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "serve": ("lbproxy serve -c lb.toml", "lbproxy serve -n 4 -l :8080 -- uvicorn app:app --port {port}"),
    "check": ("lbproxy check -c lb.toml", "lbproxy check --effective"),
    "explain": ("lbproxy explain pool.web.drain.websocket", "lbproxy explain drain"),
    "init": ("lbproxy init", "lbproxy init --for gunicorn -o deploy/lb.toml", "lbproxy init --compose"),
    "status": ("lbproxy status", "lbproxy status web --json"),
    "reload": ("lbproxy reload", "lbproxy reload web --timeout 5m", "lbproxy reload --config-only"),
    "plan": ("lbproxy plan", "lbproxy plan web --config-only"),
    "rollback": ("lbproxy rollback web", "lbproxy rollback web --to 5"),
    "abort": ("lbproxy abort", "lbproxy abort web"),
    "resume": ("lbproxy resume", "lbproxy resume web"),
    "history": ("lbproxy history", "lbproxy history web -n 5 --json"),
    "scale": ("lbproxy scale web=6",),
    "drain": ("lbproxy drain web.3", "lbproxy drain web.3 --why"),
    "undrain": ("lbproxy undrain web.3",),
    "restart": ("lbproxy restart web.3", "lbproxy restart web.3 --timeout 5m"),
    "connections": ("lbproxy connections", "lbproxy connections web.3 --json"),
    "close": ("lbproxy close w1-17",),
    "pause": ("lbproxy pause web --max-wait 30s", 'lbproxy pause web --maintenance --message "Back at 10:00"'),
    "unpause": ("lbproxy unpause web",),
    "logs": ("lbproxy logs web.3 -f", "lbproxy logs web -n 20", "lbproxy logs access"),
    "events": ("lbproxy events -f", "lbproxy events --since 10m --json"),
    "top": ("lbproxy top", "lbproxy top web"),
    "upgrade": ("lbproxy upgrade --timeout 5m",),
    "why": ("lbproxy why 0f3a9c1e",),
    "stop": ("lbproxy stop", "lbproxy stop --now"),
    "schema": ("lbproxy schema > lb.schema.json",),
    "completion": (
        "source <(lbproxy completion bash)",
        "lbproxy completion fish > ~/.config/fish/completions/lbproxy.fish",
    ),
    "version": ("lbproxy version",),
    "cluster": ("lbproxy cluster status",),
}


def epilog(name: str) -> str | None:
    """The end of a command's help."""
    lines = EXAMPLES.get(name)
    if lines is None:
        return None
    # \b: click leaves the lines as they are.
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])
