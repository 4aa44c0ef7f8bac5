"""Real backends for tests. Each takes `--port` or PORT, and ends on TERM when its requests are done.

In a configuration for `serving`: `command = "$origin --port {port}"`.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
ROOT = _HERE.parents[2]

ORIGIN = f"{sys.executable} {ROOT / 'loadtest' / 'origin.py'}"  # very fast, many shapes of answers
DEMO = f"{sys.executable} {ROOT / 'configs' / 'demo_app.py'}"
UVICORN = f"{sys.executable} -m uvicorn --app-dir {_HERE} starlette_app:app --log-level warning"
NODE = f"node {_HERE / 'node_server.js'}"
HTTP2_CLIENT = ["node", str(_HERE / "http2_client.js")]
HYPERCORN = f"env PYTHONPATH={_HERE} {sys.executable} -m hypercorn starlette_app:app --log-level warning"
NODE_HTTP2 = f"node {_HERE / 'http2_server.js'}"  # h2c; with --pem TLS
BRITTLE = f"{sys.executable} -I -S {_HERE / 'brittle.py'}"  # breaks when it is told to
GRPC = f"{sys.executable} {_HERE / 'grpc_server.py'}"  # threaded; with --aio on asyncio
GRPCLIB = f"{sys.executable} {_HERE / 'grpclib_server.py'}"
LONGLIVED = f"{sys.executable} {_HERE / 'longlived.py'}"  # WebSockets, event streams, slow transfers
