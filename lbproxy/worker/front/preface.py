"""The front door of a plain listener that takes HTTP/1.1 and HTTP/2 (h2c): the first bytes of the client decide.

An HTTP/2 client begins with a preface that no HTTP/1.1 request can begin with (RFC 9113, 3.4). The bytes stay as they
came: the lane reads them again.
"""

from lbproxy.wire.http2.frames import PREFACE
from lbproxy.worker.front.admission import Passed


class PrefaceStage:
    silent_s: float | None = None
    may_idle = True

    def feed(self, data: bytes) -> Passed | None:
        if data.startswith(PREFACE):
            return Passed(data, protocol="h2c")
        return None if PREFACE.startswith(data) else Passed(data, protocol="http/1.1")
