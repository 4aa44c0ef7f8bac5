"""Long bodies of known length in the express lane: each as fast as the other side takes it, in bounded memory.

At most one read waits for the client, and one for the backend; while it waits, its source is not read. A large rest of
a response moves through a pipe in the kernel (splice.py).
"""

from socket import MSG_MORE

from lbproxy.model import LeaseKind
from lbproxy.worker.backends.connections import BackendConnection
from lbproxy.worker.express.record import ExpressRecord, idle_too_long
from lbproxy.worker.io.reactor import AT_LOOK, LOOK_S, READ, WRITE, When
from lbproxy.worker.io.splice import PIPE_BYTES, Pipe

BODY_BYTES = 64 * 1024
SPLICE_FROM_BYTES = 256 * 1024
SPLICES_A_TURN = 4


class BodySide(ExpressRecord):
    __slots__ = ()

    def on_ready(self, mask: int) -> None:
        raise NotImplementedError

    def on_reply(self, connection: BackendConnection) -> None:
        raise NotImplementedError

    def _wait_for_reply(self) -> None:
        raise NotImplementedError

    def _resume(self, why: str, data: bytes = b"") -> None:
        raise NotImplementedError

    # The response

    def _send_last(self, data: bytes) -> None:
        """The rest of the answer: the backend has nothing more to do with it.

        The last bytes of a connection wait for the end behind them: one packet instead of two.
        """
        sock = self.sock
        try:
            sent = sock.send(data, MSG_MORE) if self._close_after else sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._client_gone()
            return
        lanes = self.lanes
        if sent < len(data):
            self._out = data[sent:]
            self._wait_for_client()
        elif self._close_after or self.buffer or not self._reading or lanes.stopping:
            self._done()
        else:  # as _done and begin, without the calls: the client may ask again
            lanes.served += 1
            if lanes.context.access.is_on:
                self._record(None)
            self.payload = self.request_id = b""  # let go of while it is in the processor's cache
            self._status = 0
            self._too_late = idle_too_long
            self.moved_at = lanes.reactor.now
            idle_s = self.view.settings.timeouts.idle_s
            if idle_s < LOOK_S:
                lanes.reactor.arm(self, idle_s)
            else:
                self.deadline = AT_LOOK

    def _begin_body(self, start: bytes, left: int) -> None:
        """`start`: the head and what came with it; `left` bytes are still to come."""
        connection, lease, reactor = self._connection, self._lease, self.lanes.reactor
        assert connection is not None
        assert lease is not None
        self._body_left = left
        self.lanes.router.change_kind(lease, LeaseKind.TRANSFER)
        if left >= SPLICE_FROM_BYTES:
            self._pipe = self.lanes.pipes.take()
        reactor.handle(connection.fd, When(self.on_body))
        reactor.arm(self, self.timeouts.idle_s)
        self._too_late = BodySide._body_stalled
        self._pass_on(start)

    def on_body(self, mask: int) -> None:
        connection, lease = self._connection, self._lease
        if connection is None or lease is None:
            return
        if self._pipe is not None:
            self._splice(self._pipe)
            return
        try:
            data = connection.sock.recv(BODY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._cut_short("http_response_incomplete")
            return
        left = self._body_left - len(data)
        if left < 0:
            data = data[:left]  # what comes behind the body reaches nobody
        self._body_left = left
        self._reply_bytes += len(data)
        if left <= 0:
            self._let_backend_go(left == 0 and self._from_head.keep_alive)
            if self._out:
                self._out += data
            else:
                self._send_last(data)
            return
        lease.moved_at = self.lanes.reactor.now
        if self._out:
            self._out += data
            return
        self.lanes.reactor.arm(self, self.timeouts.idle_s)
        self._pass_on(data)

    def _splice(self, pipe: Pipe) -> None:
        connection, lease = self._connection, self._lease
        assert connection is not None
        assert lease is not None
        for _ in range(SPLICES_A_TURN):
            try:
                count = pipe.fill(connection.fd, min(self._body_left, PIPE_BYTES))
            except BlockingIOError:
                break
            except OSError:
                count = 0
            if not count:
                self._cut_short("http_response_incomplete")
                return
            self._body_left -= count
            self._reply_bytes += count
            if not self._drain_pipe(pipe):
                return
            if not self._body_left:
                self._body_is_through()
                return
        lease.moved_at = self.lanes.reactor.now
        self.lanes.reactor.arm(self, self.timeouts.idle_s)

    def _drain_pipe(self, pipe: Pipe) -> bool:
        """True if the client took all of it; else it is waited for, or gone."""
        while pipe.held:
            try:
                pipe.drain(self.fd)
            except BlockingIOError:
                break
            except OSError:
                self._client_gone()
                return False
        if not pipe.held:
            return True
        if self._too_late is not BodySide._client_gone:
            assert self._connection is not None
            self.lanes.reactor.unregister(self._connection.fd)
            self._wait_for_client()
        return False

    def _body_is_through(self) -> None:
        """Through the pipe, to the last byte."""
        self._let_backend_go(self._from_head.keep_alive)
        self._done()

    def _pass_on(self, data: bytes) -> None:
        """A part of a body: what the client does not take at once stops the reading of the backend.

        A short rest is read all the same: a slow client holds a connection, not a backend.
        """
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._client_gone()
            return
        if sent < len(data):
            assert self._connection is not None
            self._out = data[sent:]
            if self._body_left + len(self._out) > BODY_BYTES:
                self.lanes.reactor.unregister(self._connection.fd)
            self._wait_for_client()

    def _wait_for_client(self) -> None:
        """It is not read meanwhile: whether it is still there shows when it is written to."""
        reactor = self.lanes.reactor
        if self._reading:
            reactor.modify(self.fd, WRITE)
            reactor.handle(self.fd, When(self.on_flush))
        else:
            self._reading = True
            reactor.register(self.fd, WRITE, When(self.on_flush))
        reactor.arm(self, self.view.settings.timeouts.body_s)
        self._too_late = BodySide._client_gone

    def on_flush(self, mask: int) -> None:
        reactor, pipe = self.lanes.reactor, self._pipe
        if self._out:
            try:
                sent = self.sock.send(self._out)
            except BlockingIOError:
                return
            except OSError:
                self._client_gone()
                return
            self._out = self._out[sent:]
        reactor.arm(self, self.view.settings.timeouts.body_s)
        if self._out or (pipe is not None and not self._drain_pipe(pipe)):
            return
        reactor.modify(self.fd, READ)
        reactor.handle(self.fd, self)
        if self._connection is None:
            self._done()
            return
        reactor.unregister(self._connection.fd)  # it may still be there
        reactor.register_backend(self._connection.fd, READ, When(self.on_body))
        if self._body_left:
            reactor.arm(self, self.timeouts.idle_s)
            self._too_late = BodySide._body_stalled
        else:
            self._body_is_through()

    def _body_stalled(self) -> None:
        self._cut_short("connection_read_timeout")

    # The request

    def _begin_upload(self) -> None:
        lease, reactor = self._lease, self.lanes.reactor
        assert lease is not None
        self.lanes.router.change_kind(lease, LeaseKind.TRANSFER)
        self.payload = b""  # on its way: this request is not sent twice
        self.recv_bytes = BODY_BYTES
        reactor.arm(self, self.view.settings.timeouts.body_s)
        self._too_late = BodySide._upload_stalled
        if self.upload_left >= SPLICE_FROM_BYTES and self._reading:
            self._pipe = self.lanes.pipes.take()
            if self._pipe is not None:
                reactor.handle(self.fd, When(self.on_upload))

    def on_upload(self, mask: int) -> None:
        """A large rest of the body, through a pipe. What that holds still counts as left."""
        lease, pipe, reactor = self._lease, self._pipe, self.lanes.reactor
        if lease is None or pipe is None:
            return
        try:
            count = pipe.fill(self.fd, min(self.upload_left, PIPE_BYTES))
        except BlockingIOError:
            return
        except OSError:  # also where the kernel does not do it: reading tells
            self._stop_splicing()
            reactor.handle(self.fd, self)
            self.on_ready(mask)
            return
        if not count:
            self._client_gone()
            return
        lease.moved_at = reactor.now
        try:
            while pipe:
                self._drain_upload(pipe)
        except BlockingIOError:
            self._wait_for_backend()
            return
        except OSError:
            self._resume_upload()
            return
        if self.upload_left:
            reactor.arm(self, self.view.settings.timeouts.body_s)
            return
        self._stop_splicing()
        reactor.handle(self.fd, self)
        self._wait_for_reply()

    def _drain_upload(self, pipe: Pipe) -> None:
        """Raises as Pipe.drain."""
        assert self._connection is not None
        held = len(pipe)
        pipe.drain(self._connection.fd)
        self.upload_left -= held - len(pipe)

    def _stop_splicing(self) -> None:
        """What the pipe holds is read out of it: it waits for the backend as if it had been read."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            if pipe:
                self.unsent = pipe.read()
                self.upload_left -= len(self.unsent)
            self.lanes.pipes.give_back(pipe)

    def _upload(self, data: bytes) -> None:
        """A part of the body: what the backend does not take at once stops the reading of the client."""
        connection, lease, reactor = self._connection, self._lease, self.lanes.reactor
        assert connection is not None
        assert lease is not None
        left = self.upload_left - len(data)
        if left < 0:
            self.buffer = data[left:]
            data = data[:left]
            left = 0
        self.upload_left = left
        lease.moved_at = reactor.now
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._resume_upload()  # it takes no more, and may have answered
            return
        if sent < len(data):
            self.unsent = data[sent:]
            self._wait_for_backend()
        elif left:
            reactor.arm(self, self.view.settings.timeouts.body_s)
        else:
            self._wait_for_reply()

    def _wait_for_backend(self) -> None:
        connection, reactor = self._connection, self.lanes.reactor
        assert connection is not None
        reactor.unregister(self.fd)
        self._reading = False
        reactor.modify(connection.fd, READ | WRITE)
        reactor.handle(connection.fd, When(self.on_backend_takes))
        reactor.arm(self, self.timeouts.idle_s)
        self._too_late = BodySide._resume_upload

    def on_backend_takes(self, mask: int) -> None:
        connection, reactor = self._connection, self.lanes.reactor
        if connection is None:
            return
        if not mask & WRITE:
            self.on_reply(connection)
            return
        pipe = self._pipe
        try:
            if pipe is not None:
                self._drain_upload(pipe)
            else:
                self.unsent = self.unsent[connection.sock.send(self.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._resume_upload()
            return
        if self.unsent or pipe:
            reactor.arm(self, self.timeouts.idle_s)
            return
        reactor.modify(connection.fd, READ)
        reactor.handle(connection.fd, connection)
        self._reading = True
        reactor.register(self.fd, READ, When(self.on_upload) if pipe is not None and self.upload_left else self)
        if self.upload_left:
            reactor.arm(self, self.view.settings.timeouts.body_s)
            self._too_late = BodySide._upload_stalled
        else:
            self._stop_splicing()
            self._wait_for_reply()

    def _upload_stalled(self) -> None:
        self._resume("slow_body")

    def _resume_upload(self) -> None:
        """The backend takes no more of it: what it may have answered is for the task lane to read."""
        self._resume("upload_broken")
