"""A status document (CONTRACT.md 3) as a healthy lbproxy answers it."""

from typing import Any

BACKEND: dict[str, Any] = {
    "id": "web.1",
    "generation": 7,
    "state": "ready",
    "pid": 4121,
    "address": "127.0.0.1:41001",
    "uptime_s": 9.1,
    "restarts": 0,
    "in_flight": 3,
    "leases": {"request": 1, "websocket": 2},
    "requests_total": 31,
}

STATUS: dict[str, Any] = {
    "version": 1,
    "name": "edge-1",
    "pid": 4102,
    "uptime_s": 12.5,
    "config": {"path": "lb.toml", "loaded_at": "2026-01-01T12:00:00Z"},
    "workers": [{"id": 1, "pid": 4103, "state": "serving", "connections": 12, "express": {}}],
    "listeners": [{"name": "public", "address": "0.0.0.0:8080", "mode": "http", "pool": "web"}],
    "pools": {
        "web": {
            "generation": 7,
            "size": 2,
            "ready": 2,
            "reloading": False,
            "requests_total": 123,
            "backends": [
                BACKEND,
                {
                    **BACKEND,
                    "id": "web.2",
                    "pid": None,
                    "address": None,
                    "uptime_s": None,
                    "leases": {},
                    "in_flight": 0,
                },
            ],
        },
        "api": {"generation": 1, "size": 1, "ready": 1, "reloading": False, "requests_total": 0, "backends": [BACKEND]},
    },
}
