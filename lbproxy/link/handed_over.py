"""Why the express lane hands an exchange over to the task lane: every reason that Stats.handed_over counts.

Handing over is not a failure: the task lane serves everything. It costs more, so an operator who sees one reason grow
knows what the clients or backends do. Knows nothing of how it is found out.
"""

HANDED_OVER: dict[str, str] = {
    # Before a backend was claimed.
    "buffer": "the pool's buffer_request is not the usual one, and the body is not complete yet",
    "call": "the messages of a gRPC call are still coming",
    "chunked": "a chunked request body is not complete yet",
    "client_gone": "the client ended its connection in the middle of a request",
    "connect": "the backend refused the connection, or did not accept it in time",
    "crowded": "the queue of the backend's unix socket is full",
    "expect": "the client asks whether it may send its body (Expect: 100-continue)",
    "secure": "a fresh connection to the backend needs a handshake of TLS",
    "http2": "the backend speaks HTTP/2: the client does not, or no connection stands that has room",
    "no_route": "no route and no pool takes the request: 404",
    "off": "LBPROXY_EXPRESS=off: everything takes the task lane",
    "queue": "no backend is ready or has room: the request waits",
    "refused": "the request is malformed or over a limit: 400, 413, 431 or 501",
    "slow_head": "the head of a request was not complete in time: 408",
    "stale": "the kept backend connection had just ended, and the request cannot be sent twice",
    "upgrade": "the client asks for another protocol (Upgrade), such as a WebSocket",
    # With the request wholly or partly sent.
    "backend_ended": "the backend ended the connection before its answer",
    "backpressure": "the backend did not take the whole request at once",
    "bad_response": "the backend's answer is malformed: 502; or its head has bare LFs, and the pool accepts them",
    "chunked_reply": "a chunked response body is not complete yet",
    "cut": "the grace of a drain is over, and nothing is answered",
    "early_answer": "the backend answered before the request's body was complete",
    "interim": "the backend sent an interim response (1xx)",
    "slow_reply": "the backend did not answer in time: 504",
    "stream": "the response is a stream of events",
    "until_close": "the response has no length: the connection's end ends it",
    "upload_broken": "the backend takes no more of the request's body",
    # Either.
    "slow_body": "the body of a request comes slowly: what still comes is streamed, else 408",
}


def as_table() -> str:
    """The reasons as a table in Markdown."""
    rows = [f"| `{reason}` | {sentence} |" for reason, sentence in sorted(HANDED_OVER.items())]
    return "\n".join(["| reason | meaning |", "|---|---|", *rows]) + "\n"
