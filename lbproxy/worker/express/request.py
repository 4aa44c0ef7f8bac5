"""The way there: read a client's request, claim a backend, and send the request to it.

The express lane serves simple exchanges without a task. It never decides anything hard: it decides that something is
hard, and hands the exchange over (finish.py): enter() when nothing has been claimed (the client's bytes go along),
resume() when the request is wholly or partly sent (lease, backend connection, unsent bytes and response bytes go
along). What a connection waits for is its phase (phase.py). Handlers in the order of an exchange:

    on_ready      the whole head is there and strict, the body is complete  ->  claim, send to the backend
    on_reply      the whole response head is there and strict (reply.py)    ->  send to the client
    on_body       the rest of a body of known length (body.py), as fast as the client takes it
    on_flush      bytes that the client had not taken at once

Hot: per exchange four system calls and a dozen Python calls. wire/head_cache.py explains the ways in which a head is
read. All bytes come from the same functions in both lanes. Benchmark: loadtest/hotpath.py.
"""

from lbproxy.model import LeaseKind, PoolView
from lbproxy.policy.retry import IDEMPOTENT
from lbproxy.settings import EARLY_BODY_BYTES
from lbproxy.wire.body import chunk, last_chunk, request_body
from lbproxy.wire.head import Refused, RequestHead, head_end, read_request
from lbproxy.wire.headers import client_of, new_request_id, request_id_of, request_to_backend
from lbproxy.worker.backends.announcement import announcement
from lbproxy.worker.backends.connections import BackendConnection, ConnectFailed, Crowded, begin_connect, finish_connect
from lbproxy.worker.express.body import begin_upload, upload
from lbproxy.worker.express.finish import connect_refused, enter, enter_again, give_up, read_ahead, resume
from lbproxy.worker.express.phase import BODY, CONNECTING, HEAD, IDLE, WAITING, Phase
from lbproxy.worker.express.record import ExpressRecord, act, change, put_off
from lbproxy.worker.io.reactor import AT_LOOK, LOOK_S
from lbproxy.worker.io.read_size import read_on, room_for
from lbproxy.worker.leases.affinity import Key, StickyKey, key_of
from lbproxy.worker.leases.drain import Lease

REQUEST = LeaseKind.REQUEST  # an attribute of an enum costs as much as three of these


# From the client


def on_ready(record: ExpressRecord, mask: int) -> None:
    try:
        data = record.sock.recv(record.recv_bytes)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if record.lease is None and data and data == record.whole and not record.buffer:
        if record.cached is None:
            remember(record)
        forward(record)
    elif record.lease is not None:
        if record.upload_left and data:
            upload(record, data)
        else:
            read_ahead(record, data)
    elif not data:
        if record.buffer and record.phase is IDLE:
            record.phase = HEAD  # a pipelined request that was not looked at yet
        act(record, record.phase.client_gone)
    elif record.buffer:
        consider_more(record, data)
    else:
        consider(record, data, 0)


def consider_more(record: ExpressRecord, data: bytes) -> None:
    since = record.entered_at if record.phase is BODY else record.lanes.reactor.now
    before, record.buffer = record.buffer, b""
    consider(record, before + data, len(before))
    if record.lease is not None:
        record.started = since


def on_pipelined(record: ExpressRecord) -> None:
    """The next request was received with the last one. It is looked at after all other connections had a turn."""
    if record.buffer and record.phase in (IDLE, HEAD, BODY):
        data, record.buffer = record.buffer, b""
        consider(record, data, 0)


def consider(record: ExpressRecord, data: bytes, seen: int) -> None:
    """Forward a whole, simple request; else wait for the rest, or hand it over.

    The end of a head was looked for before in the first `seen` bytes, without a result.
    """
    lanes, limits = record.lanes, record.view.settings.limits
    if len(data) == record.recv_bytes:
        data = read_on(record, data)
    if lanes.off:
        enter(record, data, "off")
        return
    match, size = None, len(data)
    if again := record.read_under is record.view and data.startswith(record.raw):
        head = record.head if record.request_match is not None else record.sample
        end, length = len(record.raw), head.length
    else:
        match = lanes.request_templates.read(data)
        if match is not None and match[0].field_lines <= limits.headers and match[2] <= limits.header_bytes:
            template, values, end = match
            head, length = template.sample, template.length(values)
        else:
            match = None
            end = read_head(record, data, seen)
            if not end:
                return
            head, length = record.sample, record.sample.length
    if head.chunked:
        raw = data[:end]
        record.whole = b""
        if not take_chunked(record, data, end, head):
            return
    elif length is None and end == size:
        raw = record.whole = data
        record.payload = b""
        record.request_bytes = 0
    else:
        length = length or 0
        if length and limits.body_bytes and length > limits.body_bytes:
            enter(record, data, "refused")
            return
        missing = end + length - size
        if missing > 0 and (size - end < EARLY_BODY_BYTES or not lanes.router.buffers_alike):
            wait_for_body(record, data, head.host, match[1][0] if match is not None else head.target)
            return
        raw = data[:end]
        record.whole = b"" if length else raw
        record.payload = data[end : end + length]
        record.request_bytes = length
        record.upload_left = max(missing, 0)
        if missing < 0:
            record.buffer = data[missing:]
    if not again:
        record.raw = raw
        record.read_under = record.view
        record.sample = head
        record.request_match = match
        record.cached = None
        record.recv_bytes = room_for(size)
    elif record.cached is None:
        remember(record)
    forward(record)


def read_head(record: ExpressRecord, data: bytes, seen: int) -> int:
    """Read a head into `record.sample` and return where it ends; 0 if it is handed over, or the rest is waited for."""
    lanes, limits = record.lanes, record.view.settings.limits
    record.forget_head()
    end = data.find(b"\r\n\r\n") + 4
    try:
        if end < 5:  # no end yet, or nothing before it
            head_end(data, seen, limits.header_bytes)
            wait_for_rest(record, data, HEAD)
            return 0
        if end > limits.header_bytes:
            enter(record, data, "refused")
            return 0
        raw = data[:end]
        head = record.sample = read_request(raw, lanes.lines, limits.headers)
        record.request_match = None
    except Refused:
        enter(record, data, "refused")
        return 0
    if head.expects_continue or head.upgrades:
        enter(record, data, "upgrade" if head.upgrades else "expect")
        return 0
    lanes.request_templates.learn(raw)
    return end


def take_chunked(record: ExpressRecord, data: bytes, end: int, head: RequestHead) -> bool:
    """Frame a complete chunked body anew; an incomplete one goes to the task lane as it was received."""
    body = request_body(head, record.view.settings.limits.body_bytes)
    try:
        payload = body.feed(data[end:])
    except Refused:
        enter(record, data, "refused")
        return False
    if not body.done:
        enter(record, data, "chunked")
        return False
    record.payload = chunk(payload) + last_chunk(body.trailers)
    record.request_bytes = len(payload)
    record.buffer = body.rest
    return True


def remember(record: ExpressRecord) -> None:
    """The head is the same as the last one: from now on it is used from the head cache."""
    known = record.cached = record.lanes.head_cache.request(record.raw, record.head, record.facts)
    record.sample = known.head
    record.raw = known.raw
    if record.whole:
        record.whole = known.raw


def wait_for_body(record: ExpressRecord, data: bytes, host: bytes, target: bytes) -> None:
    pool = record.lanes.router.route(record.view, host, target)
    if pool is None:
        enter(record, data, "no_route")  # the client need not send the rest
    elif pool.buffer_request_bytes != EARLY_BODY_BYTES:
        enter(record, data, "buffer")
    else:
        wait_for_rest(record, data, BODY)


def wait_for_rest(record: ExpressRecord, data: bytes, phase: Phase) -> None:
    """The limit of a head runs from its first byte; a body only has to keep coming."""
    record.buffer = data
    if record.phase is not phase:
        change(record, phase)
    elif phase is BODY:
        put_off(record)


# To the backend


def forward(record: ExpressRecord) -> None:
    """Claim a backend, and put the request on a connection to it."""
    lanes, facts, match = record.lanes, record.facts, record.request_match
    router, reactor = lanes.router, lanes.reactor
    now = reactor.now
    varies = facts.varies
    head = record.head if varies else record.sample
    pool = router.unrouted.get(record.view.key)
    if pool is None:
        pool = router.route(record.view, head.host, match[1][0] if match is not None else head.target)
        if pool is None:
            enter_again(record, "no_route")
            return
    key = key_for(record, pool) if pool.is_keyed else None
    lease = None if router.queues and router.waiting(pool.name) else router.claim(pool, REQUEST, key, now, record)
    if lease is None:
        enter_again(record, "queue")
        return
    record.lease = lease
    timeouts = record.timeouts = pool.timeouts
    request_id = record.own = request_id_of(head, facts) if varies else new_request_id()
    cached, payload = record.cached, record.payload
    if cached is not None:
        ours = b"" if varies else facts.forwarded
        data = b"".join((cached.before, ours, cached.between, request_id, cached.behind, payload))
    elif match is not None and not varies:
        data = match[0].to_backend(match[1], facts, request_id) + payload
    else:
        data = request_to_backend(head, facts, request_id) + payload
    if key is not None:
        record.own += router.cookie(lease, key, facts.proto)
    replayable = head.method in IDEMPOTENT and not record.upload_left
    connection = None
    if replayable or record.has_risked:  # else the end of a kept connection would lose it (policy/retry.py)
        connection = lanes.backends.take(lease.backend, timeouts.keepalive_s)
    if connection is None:
        connect_and_send(record, lease, data)
        return
    record.connection = connection
    connection.owner = record
    if not replayable and not connection.is_silent():
        give_up(record, "stale")  # it has just ended, and this request could not be sent twice
        return
    try:
        count = connection.sock.send(data)
    except BlockingIOError:
        count = 0
    except OSError:
        resume(record, "backend_ended")  # whether it may be sent again is for the task lane to decide
        return
    if count < len(data) or record.upload_left:
        sent(record, data, count)
        return
    record.phase = WAITING
    record.entered_at = now
    if timeouts.response_s < LOOK_S:
        reactor.arm(record, timeouts.response_s)
    else:
        record.deadline = AT_LOOK


def key_for(record: ExpressRecord, pool: PoolView) -> Key:
    """Same as key_of, but a head without the cookie's name is not looked through, and need not be made."""
    if pool.sticky is not None and pool.balance != "hash" and pool.sticky.cookie.encode() not in record.raw:
        return StickyKey()
    return key_of(pool, record.head, record.facts)


def connect_and_send(record: ExpressRecord, lease: Lease, data: bytes) -> None:
    """Connect, then send. On loopback the connection stands before connect() returns: nothing has to be waited for."""
    if lease.backend.is_http2:
        record.share(lease)
        return
    if lease.backend.send_proxy:
        who = client_of(record.head, record.facts)
        data = announcement(lease.backend.send_proxy, record.sock, record.facts, who) + data
    try:
        sock = begin_connect(lease.backend.address)
    except Crowded:
        give_up(record, "crowded")
        return
    except ConnectFailed as exc:
        connect_refused(record, str(exc))
        return
    if sock is None:
        give_up(record, "secure")
        return
    connection = record.connection = BackendConnection(lease.backend, sock)
    connection.owner = record
    try:
        if not finish_connect(sock, lease.backend.address):
            record.unsent = data
            change(record, CONNECTING)
            return
        count = sock.send(data)
    except (OSError, ConnectFailed) as exc:  # nothing was sent: it may go elsewhere
        connect_refused(record, str(exc))
        return
    sent(record, data, count)


def on_connected(record: ExpressRecord, mask: int) -> None:
    connection, lease, data = record.connection, record.lease, record.unsent
    if connection is None or lease is None:
        return
    try:
        if not finish_connect(connection.sock, lease.backend.address):
            return
    except ConnectFailed as exc:
        act(record, record.phase.backend_gone, str(exc))
        return
    try:
        count = connection.sock.send(data)
    except BlockingIOError:
        count = 0
    except OSError:
        connection.is_reset = True
        resume(record, "backend_ended")
        return
    sent(record, data, count)


def sent(record: ExpressRecord, data: bytes, count: int) -> None:
    """`count` bytes of the request have been sent: wait for the response, go on with the body, or hand it over."""
    if record.upload_left or record.sample.method not in IDEMPOTENT:
        record.has_risked = True
    if count < len(data):
        record.unsent = data[count:]
        resume(record, "backpressure")
        return
    record.unsent = b""
    if record.upload_left:
        begin_upload(record)
    else:
        change(record, WAITING)
