"""Every way an exchange of the express lane ends: answered, abandoned, cut short, or handed over to the task lane.

Knows deadlines and counting; decides nothing.
"""

import socket

from lbproxy.telemetry.access import AccessRecord
from lbproxy.wire.head import Refused
from lbproxy.wire.headers import client_of
from lbproxy.worker.backends.connections import BackendConnection, is_silent
from lbproxy.worker.ending import fail, failure_of
from lbproxy.worker.express.phase import AWAY, IDLE, WAITING
from lbproxy.worker.express.record import ExpressRecord, act, change, limit_s
from lbproxy.worker.handover import (
    CLIENT_CLOSED,
    EARLY_BODY_S,
    READ_AHEAD_BYTES,
    Begun,
    Handover,
    Sent,
    head_too_slow,
)
from lbproxy.worker.leases.drain import Lease
from lbproxy.worker.tally import count, series_of

# Why an answer breaks off that has begun: RFC 9209 error type, and the sentence for the operator.
CUT_SHORT = {
    "cut": "the grace of the drain is over",
    "http_response_incomplete": "the body was cut short",
    "connection_read_timeout": "the response body stalled",
}


def begin(record: ExpressRecord) -> None:
    """Wait for a request; `buffer` may hold one already."""
    # What is left of the last exchange; the task lane may have had it.
    record.payload = record.unsent = record.own = b""
    record.upload_left = record.status = 0
    change(record, IDLE)
    if record.buffer:
        record.lanes.reactor.defer(record.on_pipelined)


def go_on(record: ExpressRecord) -> None:
    """The event changes nothing in this phase."""


def on_deadline(record: ExpressRecord) -> None:
    phase = record.phase
    if not phase.is_lazy or has_waited(record, limit_s(record)):
        act(record, phase.over)


def has_waited(record: ExpressRecord, timeout_s: float) -> bool:
    """Have `timeout_s` passed since the phase began? If not, the record is looked at again when they have."""
    reactor = record.lanes.reactor
    due = record.entered_at + timeout_s
    if due > reactor.now:
        reactor.arm_at(record, due)
        return False
    return True


def cut(record: ExpressRecord) -> None:
    """The grace of a drain is over."""
    act(record, record.phase.cut)


def stop(record: ExpressRecord) -> None:
    """The worker stops: answers say that the connection ends."""
    record.added = record.added or b""
    if record.phase is not IDLE or not record.buffer:  # a pipelined request that was not looked at yet goes on
        act(record, record.phase.stop)


def close_if_silent(record: ExpressRecord) -> None:
    """Close an idle connection. A request that has come in this moment is answered first."""
    if is_silent(record.sock):
        close(record)


# Letting go


def leave(record: ExpressRecord) -> None:
    """Take the connection off the reactor: it goes to the task lane."""
    reactor = record.lanes.reactor
    reactor.unregister(record.fd)
    reactor.disarm(record)
    record.client_events = 0
    record.phase = AWAY


def close(record: ExpressRecord) -> None:
    reactor = record.lanes.reactor
    reactor.forget(record.fd)
    reactor.disarm(record)
    record.client_events = 0
    record.phase = AWAY
    record.sock.close()
    record.lanes.closed(record)


def abort(record: ExpressRecord) -> None:
    """A mistake of ours: the reactor calls this for the connection that met it."""
    let_backend_go(record, False)
    record.close()


def let_backend_go(record: ExpressRecord, reusable: bool) -> None:
    """The backend's part is over: the lease is released, the connection kept for others or closed."""
    connection, lease, lanes = record.connection, record.lease, record.lanes
    if lease is None:
        return
    record.connection = record.lease = None
    if record.pipe is not None:
        lanes.pipes.give_back(record.pipe)
        record.pipe = None
    if connection is not None:
        if reusable:
            lanes.reactor.handlers[connection.fd] = connection
            lanes.backends.keep(connection)
        else:
            lanes.reactor.forget(connection.fd)
            connection.close()
    lanes.router.finish(lease)


# The ends of an exchange


def done(record: ExpressRecord) -> None:
    """The last byte of the answer is with the client."""
    lanes = record.lanes
    tally(record)
    if lanes.context.access.is_on:
        log(record, None)
    if record.close_after:
        if record.buffer:
            lanes.linger(record)  # the client has sent more than was read: a reset could swallow the answer
        else:
            end_and_close(record)
    else:
        begin(record)
        lanes.offer(record)


def end_and_close(record: ExpressRecord) -> None:
    """The last bytes of the answer may have waited for this: they leave with the end of the connection, and before a
    close that finds unread bytes, which is a reset."""
    try:  # noqa: SIM105 (suppress costs as much as the shutdown)
        record.sock.shutdown(socket.SHUT_RDWR)  # nothing more is read: over TLS that is cheaper
    except OSError:
        pass  # reset meanwhile
    close(record)


def read_ahead(record: ExpressRecord, data: bytes) -> None:
    """An answer is owed, and the client has sent its next request, or is gone."""
    if not data:
        if record.view.settings.half_close == "serve" and not record.upload_left:
            record.lanes.reactor.unregister(record.fd)  # its end is seen again behind the answer
            record.client_events = 0
        else:
            act(record, record.phase.client_gone)
        return
    record.buffer += data
    if len(record.buffer) >= READ_AHEAD_BYTES:
        record.lanes.reactor.unregister(record.fd)
        record.client_events = 0


def abandon(record: ExpressRecord) -> None:
    """The client has left while an answer was owed, or does not take it: the backend's work is abandoned."""
    let_backend_go(record, False)
    if not record.status:
        record.status = CLIENT_CLOSED
        record.reply_bytes = 0
    tally(record)
    log(record, "client_gone")
    record.close()


def cut_short(record: ExpressRecord, error: str) -> None:
    """A part of the answer is out, and no more will come: its length tells the client that it is a part."""
    backend, reason = record.backend, CUT_SHORT[error]
    told = _access_record(record, error, reason)
    fail(record.lanes.context, backend.cell, failure_of(told, backend.id.pool))
    if error != "cut":
        record.lanes.context.errors.note(backend, reason)
    let_backend_go(record, False)
    tally(record)
    log(record, error, reason)
    record.close()


def tally(record: ExpressRecord) -> None:
    """Count the exchange, with what has passed of its bodies."""
    series = series_of(record.leases.methods, record.sample.method, record.status)
    took_s = record.lanes.reactor.now - record.started
    count(series, took_s, record.request_bytes - record.upload_left, record.reply_bytes)


def log(record: ExpressRecord, error: str | None, reason: str | None = None) -> None:
    access = record.lanes.context.access
    if not access.is_on:
        return
    match = record.request_match
    if access.is_combined and (match is None or match[0].logs_alike):
        # The usual way: neither a record nor a head of its own is made (2.3 us of a request with 13 fields).
        head = record.sample
        target = head.target if match is None else match[1][0]
        at = record.lanes.reactor.wall(record.started)
        client = client_of(head, record.facts) if record.facts.trusted else record.facts.ip
        access.note(at, client, head, target, status=record.status, size=record.reply_bytes)
        return
    access.add(_access_record(record, error, reason))


def _access_record(record: ExpressRecord, error: str | None, reason: str | None) -> AccessRecord:
    reactor = record.lanes.reactor
    return AccessRecord(
        reactor.wall(record.started),
        record.head,
        record.status,
        record.request_bytes - record.upload_left,
        record.reply_bytes,
        reactor.now - record.started,
        record.backend.id,
        client_of(record.head, record.facts),
        record.request_id,
        error,
        reason,
    )


# To the task lane


def enter(record: ExpressRecord, data: bytes, why: str, refused: Refused | None = None) -> None:
    """Hand the connection over with nothing claimed. `data`: all bytes of the client since the last exchange."""
    record.buffer = b""
    leave(record)
    waited = why == "slow_body"  # for the rest of a body
    # Its deadline is that of its silence, or EARLY_BODY_S after its head: what moves until then has not stalled.
    passed_s = record.lanes.reactor.now - record.entered_at
    has_stalled = waited and record.view.settings.timeouts.body_s <= passed_s < EARLY_BODY_S
    came_at = record.entered_at if waited else None
    record.hand_over(Handover(why, data, refused, came_at, has_stalled))


def enter_buffered(record: ExpressRecord, why: str) -> None:
    enter(record, record.buffer, why)


def enter_again(record: ExpressRecord, why: str) -> None:
    """Hand over a request that was read already: the task lane reads it anew, from its first byte."""
    enter(record, record.raw + record.payload + record.buffer, why)


def refuse_slow_head(record: ExpressRecord) -> None:
    enter(record, record.buffer, "slow_head", head_too_slow(record.view.settings.timeouts.header_s))


def give_up(record: ExpressRecord, why: str) -> None:
    """Nothing was sent on this lease: release it and begin anew in the task lane."""
    lease, connection = record.lease, record.connection
    record.lease = record.connection = None
    if connection is not None:
        record.lanes.reactor.unregister(connection.fd)
        connection.close()
    if lease is not None and why in ("secure", "http2"):
        record.lanes.router.give_back(lease)  # else of two backends the same one would get every fresh connection
    elif lease is not None:
        record.lanes.router.release(lease)
    enter_again(record, why)


def share(record: ExpressRecord, lease: Lease) -> None:
    """The backend speaks HTTP/2, and this client does not."""
    give_up(record, "http2")


def connect_refused(record: ExpressRecord, why: str) -> None:
    record.lanes.context.unreachable(record.backend, why)
    give_up(record, "connect")


def connect_too_slow(record: ExpressRecord) -> None:
    why = f"no connection within {record.timeouts.connect_s:g}s"
    record.lanes.context.unreachable(record.backend, why, timed_out=True)
    give_up(record, "connect")


def resume(record: ExpressRecord, why: str, response: bytes = b"") -> None:
    """Hand the exchange over with the request wholly or partly sent. `response`: what was received of it."""
    respond_by: float | None = None  # the time of an answer is not begun anew
    if why == "slow_reply":
        respond_by = record.lanes.reactor.now
    elif record.phase is WAITING:
        respond_by = record.entered_at + record.timeouts.response_s
    stop_splicing(record)
    lease, connection = release(record)
    connection.buffer += response
    leave(record)
    sent = Sent(
        Begun(lease, connection, record.timeouts, respond_by=respond_by),
        *(record.head, record.own, record.payload, record.request_bytes - record.upload_left),
        *(record.started, record.unsent),
    )
    data, record.buffer = record.buffer, b""
    record.hand_over(Handover(why, data, has_stalled=why == "slow_body", sent=sent))


def hand_over(record: ExpressRecord, handover: Handover) -> None:
    record.lanes.hand_over(record, handover)


def release(record: ExpressRecord) -> tuple[Lease, BackendConnection]:
    """Take lease and backend connection off the reactor. The task lane looks whether the lease is overdue."""
    lease, connection = record.lease, record.connection
    assert lease is not None
    assert connection is not None
    record.lease = record.connection = connection.owner = None
    lease = record.lanes.router.hand_on(lease)
    record.overdue = False
    record.lanes.reactor.unregister(connection.fd)
    return lease, connection


def stop_splicing(record: ExpressRecord) -> None:
    """The pipe is given back. Bytes in it are read out: they wait for the backend as if they had been read."""
    pipe, record.pipe = record.pipe, None
    if pipe is not None:
        if pipe:
            record.unsent = pipe.read()
            record.upload_left -= len(record.unsent)
        record.lanes.pipes.give_back(pipe)
