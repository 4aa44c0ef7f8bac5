"""Long bodies of known length: each moves as fast as the other side takes it, in bounded memory.

At most one read waits for the client, and one for the backend; while it waits, its source is not read. A large rest of
a body moves through a pipe in the kernel (io/splice.py).
"""

from bisect import bisect_left
from socket import MSG_MORE

from lbproxy.model import LeaseKind
from lbproxy.telemetry.histogram import DURATION_BOUNDS_S
from lbproxy.worker.express.finish import abandon, done, let_backend_go, log, stop_splicing
from lbproxy.worker.express.phase import BACKEND_FULL, CLIENT_FULL, DOWNLOADING, IDLE, UPLOADING, WAITING
from lbproxy.worker.express.record import BODY_BYTES, ExpressRecord, act, change, put_off
from lbproxy.worker.io.reactor import AT_LOOK, LOOK_S, WRITE
from lbproxy.worker.io.splice import PIPE_BYTES, Pipe, are_plain
from lbproxy.worker.tally import FIRST_BOUND_S, REQUEST_BYTES, RESPONSE_BYTES, TOOK_S, series_of

SPLICE_FROM_BYTES = 256 * 1024
SPLICES_A_TURN = 4

# The response


def send_last(record: ExpressRecord, data: bytes) -> None:
    """Send the rest of the answer. The backend's part is over.

    The last bytes of a connection wait for the end behind them: one packet instead of two.
    """
    sock = record.sock
    try:
        sent = sock.send(data, MSG_MORE) if record.close_after else sock.send(data)
    except BlockingIOError:
        sent = 0
    except OSError:
        abandon(record)
        return
    lanes = record.lanes
    if sent < len(data):
        record.unflushed = data[sent:]
        change(record, CLIENT_FULL)
    elif record.close_after or record.buffer or not record.client_events or lanes.going:
        done(record)
    else:  # inlined done(), with its tally(), and begin() (saves four calls): the client may ask again
        now = lanes.reactor.now
        took_s = now - record.started
        try:
            series = record.leases.methods[record.sample.method][record.status]
        except KeyError:
            series = series_of(record.leases.methods, record.sample.method, record.status)
        series[0 if took_s <= FIRST_BOUND_S else bisect_left(DURATION_BOUNDS_S, took_s)] += 1
        series[TOOK_S] += took_s
        series[RESPONSE_BYTES] += record.reply_bytes
        if record.request_bytes:
            series[REQUEST_BYTES] += record.request_bytes
        if lanes.context.access.is_on:
            log(record, None)
        record.payload = record.own = b""  # freed while they are in the processor's cache
        record.status = 0
        record.phase = IDLE
        record.entered_at = now
        idle_s = record.view.settings.timeouts.idle_s
        if idle_s < LOOK_S:
            lanes.reactor.arm(record, idle_s)
        else:
            record.deadline = AT_LOOK


def begin_body(record: ExpressRecord, start: bytes, left: int) -> None:
    """Send `start`, the head and the bytes behind it; `left` bytes are still to come."""
    assert record.lease is not None
    assert record.connection is not None
    record.body_left = left
    record.lanes.router.change_kind(record.lease, LeaseKind.TRANSFER)
    if left >= SPLICE_FROM_BYTES and are_plain(record.sock, record.connection.sock):
        record.pipe = record.lanes.pipes.take()
    change(record, DOWNLOADING)
    pass_on(record, start)


def on_body(record: ExpressRecord, mask: int) -> None:
    connection = record.connection
    if connection is None or record.lease is None:
        return
    if record.pipe is not None:
        splice(record, record.pipe)
        return
    try:
        data = connection.sock.recv(BODY_BYTES)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if not data:
        act(record, record.phase.backend_gone)
        return
    left = record.body_left - len(data)
    if left < 0:
        data = data[:left]  # bytes behind the body are dropped
    record.body_left = left
    record.reply_bytes += len(data)
    if left <= 0:
        let_backend_go(record, left == 0 and record.response.keep_alive)
        if record.unflushed:
            record.unflushed += data
        else:
            send_last(record, data)
        return
    if record.unflushed:
        record.moved_at = record.lanes.reactor.now
        record.unflushed += data
        return
    put_off(record)
    pass_on(record, data)


def splice(record: ExpressRecord, pipe: Pipe) -> None:
    connection = record.connection
    assert connection is not None
    for _ in range(SPLICES_A_TURN):
        try:
            count = pipe.fill(connection.fd, min(record.body_left, PIPE_BYTES))
        except BlockingIOError:
            break
        except OSError:
            count = 0
        if not count:
            act(record, record.phase.backend_gone)
            return
        record.body_left -= count
        record.reply_bytes += count
        if not drain_pipe(record, pipe):
            return
        if not record.body_left:
            body_is_through(record)
            return
    put_off(record)


def drain_pipe(record: ExpressRecord, pipe: Pipe) -> bool:
    """Move the pipe's bytes to the client. True if it took all of them; else it is waited for, or gone."""
    while pipe.held:
        try:
            pipe.drain(record.fd)
        except BlockingIOError:
            break
        except OSError:
            abandon(record)
            return False
    if not pipe.held:
        return True
    if record.phase is not CLIENT_FULL:
        change(record, CLIENT_FULL)
    return False


def body_is_through(record: ExpressRecord) -> None:
    """The last byte of the body is with the client."""
    let_backend_go(record, record.response.keep_alive)
    done(record)


def pass_on(record: ExpressRecord, data: bytes) -> None:
    """Send a part of a body. If the client does not take all of it, the backend is not read until it does."""
    try:
        sent = record.sock.send(data)
    except BlockingIOError:
        sent = 0
    except OSError:
        abandon(record)
        return
    if sent < len(data):
        record.unflushed = data[sent:]
        change(record, CLIENT_FULL)


def on_flush(record: ExpressRecord, mask: int) -> None:
    """The client takes more. It is not read in this phase: a write shows whether it is still there."""
    pipe = record.pipe
    if record.unflushed:
        try:
            sent = record.sock.send(record.unflushed)
        except BlockingIOError:
            return
        except OSError:
            act(record, record.phase.client_gone)
            return
        record.unflushed = record.unflushed[sent:]
    put_off(record)
    if record.unflushed or (pipe is not None and not drain_pipe(record, pipe)):
        return
    if record.connection is None:
        done(record)
        return
    change(record, DOWNLOADING)
    if not record.body_left:
        body_is_through(record)


# The request


def begin_upload(record: ExpressRecord) -> None:
    assert record.lease is not None
    assert record.connection is not None
    record.lanes.router.change_kind(record.lease, LeaseKind.TRANSFER)
    record.payload = b""  # on its way: this request is not sent twice
    record.recv_bytes = BODY_BYTES
    if record.upload_left >= SPLICE_FROM_BYTES and are_plain(record.sock, record.connection.sock):
        record.pipe = record.lanes.pipes.take()
    change(record, UPLOADING)


def on_upload(record: ExpressRecord, mask: int) -> None:
    """Move a large rest of the body through a pipe. Bytes in the pipe count as left."""
    pipe = record.pipe
    if record.lease is None or pipe is None:
        return
    try:
        count = pipe.fill(record.fd, min(record.upload_left, PIPE_BYTES))
    except BlockingIOError:
        return
    except OSError:  # also where the kernel does not do it: reading tells
        stop_splicing(record)
        record.lanes.reactor.handle(record.fd, record)
        return
    if not count:
        abandon(record)
        return
    try:
        while pipe:
            drain_upload(record, pipe)
    except BlockingIOError:
        change(record, BACKEND_FULL)
        return
    except OSError:
        act(record, record.phase.backend_gone)
        return
    if record.upload_left:
        put_off(record)
        return
    stop_splicing(record)
    change(record, WAITING)


def drain_upload(record: ExpressRecord, pipe: Pipe) -> None:
    """Move the pipe's bytes to the backend. Raises what Pipe.drain raises."""
    assert record.connection is not None
    held = len(pipe)
    pipe.drain(record.connection.fd)
    record.upload_left -= held - len(pipe)


def upload(record: ExpressRecord, data: bytes) -> None:
    """Send a part of the body. If the backend does not take all of it, the client is not read until it does."""
    connection = record.connection
    assert connection is not None
    left = record.upload_left - len(data)
    if left < 0:
        record.buffer = data[left:]
        data = data[:left]
        left = 0
    record.upload_left = left
    try:
        sent = connection.sock.send(data)
    except BlockingIOError:
        sent = 0
    except OSError:
        act(record, record.phase.backend_gone)  # the backend takes no more, and may have answered
        return
    if sent < len(data):
        record.unsent = data[sent:]
        change(record, BACKEND_FULL)
    elif left:
        put_off(record)
    else:
        change(record, WAITING)


def on_backend_takes(record: ExpressRecord, mask: int) -> None:
    """The backend takes more of the body; or it answers early, or is gone."""
    connection = record.connection
    if connection is None:
        return
    if not mask & WRITE:
        connection.on_ready(mask)
        return
    pipe = record.pipe
    try:
        if pipe is not None:
            drain_upload(record, pipe)
        else:
            record.unsent = record.unsent[connection.sock.send(record.unsent) :]
    except BlockingIOError:
        return
    except OSError:
        act(record, record.phase.backend_gone)
        return
    if record.unsent or pipe:
        put_off(record)
    elif record.upload_left:
        change(record, UPLOADING)
    else:
        stop_splicing(record)
        change(record, WAITING)
