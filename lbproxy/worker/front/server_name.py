"""The front door of a tcp listener whose clients are routed by the name that their ClientHello asks for (SNI).

Nothing is decrypted and nothing changed: the backend gets the same bytes, and has the key. A client that does not
begin with a ClientHello, or asks for no name, goes where the listener's other clients go.
"""

from lbproxy.wire.client_hello import ClientHelloReader, NotClientHello
from lbproxy.worker.front.admission import Passed

SILENT_S = 2.0  # a lost packet is sent again before that; in some protocols the server speaks first


class ServerNameStage:
    silent_s: float | None = SILENT_S
    may_idle = False

    def __init__(self) -> None:
        self._reader = ClientHelloReader()
        self._seen = 0

    def feed(self, data: bytes) -> Passed | None:
        new, self._seen = data[self._seen :], len(data)
        try:
            hello = self._reader.feed(new)
        except NotClientHello:
            return Passed(data)
        return None if hello is None else Passed(data, server_name=hello.server_name)
