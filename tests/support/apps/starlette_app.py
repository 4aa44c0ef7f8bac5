"""A Starlette application, as a user would have one. `BREAK=import|health|exit` makes it a bad deploy.

uvicorn starlette_app:app --port {port}
"""

import json
import os
import sys
from collections.abc import AsyncIterator

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

BREAK = os.environ.get("BREAK", "")
if BREAK == "import":
    raise ImportError("this deploy is broken on purpose")
if BREAK == "exit":
    sys.stderr.write("no database, no service\n")
    sys.exit(7)


def me() -> dict[str, str | int]:
    return {
        "slot": os.environ.get("LBPROXY_SLOT", "-"),
        "generation": os.environ.get("LBPROXY_GENERATION", "-"),
        "pid": os.getpid(),
        "version": os.environ.get("APP_VERSION", "-"),
    }


async def whoami(request: Request) -> Response:
    return JSONResponse(me())


async def healthz(request: Request) -> Response:
    if BREAK == "health":
        return PlainTextResponse("the database is on fire", status_code=500)
    return PlainTextResponse("fine")


async def headers(request: Request) -> Response:
    """The fields that the backend received, in order, repeated names too."""
    return JSONResponse([[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw])


async def slow(request: Request) -> Response:
    await anyio.sleep(float(request.query_params.get("s", "1")))
    return JSONResponse(me())


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


async def big(request: Request) -> Response:
    return Response(b"x" * int(request.query_params.get("bytes", "1000")))


async def clock(request: Request) -> Response:
    last = request.headers.get("last-event-id", "")
    count = int(request.query_params.get("n", "5"))
    first = int(last) + 1 if last.isdigit() else 1

    async def events() -> AsyncIterator[str]:
        for number in range(first, count + 1):
            yield f"id: {number}\ndata: {json.dumps(me())}\n\n"
            await anyio.sleep(float(request.query_params.get("every", "0.1")))

    return StreamingResponse(events(), media_type="text/event-stream")


async def ws(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


app = Starlette(
    routes=[
        Route("/", whoami),
        Route("/whoami", whoami),
        Route("/healthz", healthz),
        Route("/headers", headers),
        Route("/slow", slow),
        Route("/echo", echo, methods=["POST", "PUT"]),
        Route("/big", big),
        Route("/sse", clock),
        WebSocketRoute("/ws", ws),
    ]
)
