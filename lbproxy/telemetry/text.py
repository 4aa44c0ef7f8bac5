"""An event as one line of text or JSON, and back.

Knows every event. Knows neither files nor Trio: the command line shows a reload's events with it.
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

from lbproxy.telemetry import events as e
from lbproxy.telemetry.words import compact, count

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LABELS = {"debug": "debug", "info": "info ", "warning": "warn ", "error": "error"}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
# Not Event.__subclasses__(): a slotted dataclass is a second class, and the first one lingers there.
_EVENTS = {cls.name: cls for cls in vars(e).values() if isinstance(cls, type) and issubclass(cls, e.Event) and cls.name}


def iso_time(at: float) -> str:
    """UTC with milliseconds: 2026-01-01T12:00:00.000Z."""
    milliseconds = int(at * 1000)
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{seconds}.{milliseconds % 1000:03d}Z"


def event_json(event: e.Event, at: float | None = None) -> dict[str, Any]:
    """The event's name, its time (`at`, seconds of the epoch; else now) and its fields, without those that are None.

    Durations are rounded to milliseconds here, so that no place has more digits than another.
    """
    result: dict[str, Any] = {"event": event.name, "time": iso_time(time.time() if at is None else at)}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if value is not None and field.name != "at":
            result[field.name] = round(value, 3) if isinstance(value, float) else value
    return result


def event_from_json(values: dict[str, Any]) -> e.Event | None:
    """The event that `event_json` was made of; None when it is not one that this version knows."""
    cls = _EVENTS.get(values.get("event", ""))
    if cls is None:
        return None
    known: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        # A missing field was None, or comes from a version without it: the default is right.
        if field.name in values or field.default is dataclasses.MISSING:
            value = values.get(field.name)
            known[field.name] = tuple(value) if isinstance(value, list) else value
    return cls(**known)


def json_line(event: e.Event, at: float) -> bytes:
    values = {**event_json(event, at), "level": event.level}
    return compact(values).encode() + b"\n"


def text_line(event: e.Event, at: float) -> bytes:
    """`2026-01-01T12:00:00.000Z info  web.3@7 ready after 0.4s`; further lines are indented."""
    return "".join(f"{line}\n" for line in text_lines(event, iso_time(at))).encode()


def text_lines(event: e.Event, stamp: str) -> list[str]:
    first, *more = event_text(event).split("\n")
    return [f"{stamp} {_LABELS[event.level]} {printable(first)}", *(f"    {printable(line)}" for line in more)]


def printable(text: str) -> str:
    """The text without control characters: a backend's output must not control the operator's terminal."""
    return _CONTROL_CHARACTERS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def event_text(event: e.Event) -> str:
    """The event as a sentence. More lines follow if it has output."""
    match event:
        case e.BackendOutput(backend, line):
            return f"{backend} | {line}"
        case e.Notice(text):
            return text
        case e.ExchangeFailed(request_id, pool, backend, status, error, reason, left_out):
            more = f" ({left_out} more before it not told)" if left_out else ""
            return f"{backend or pool or 'no pool'}: {status} {error}: {reason}, request {request_id}{more}"
        case e.LogDropped(lines, log):
            return f"{count(lines, 'line')} of the {log} log dropped: its reader stalls or its disk is full"
        case e.TlsFailed(listener, client, why):
            return f"listener {listener}: no TLS with {client or 'a unix peer'}: {why}"
        case e.AcceptPaused(listener, why):
            return f"listener {listener} takes no connections for now: {why}"
        case e.AcceptResumed(listener):
            return f"listener {listener} takes connections again"
    return (
        _certificate_text(event)
        or _serve_text(event)
        or _backend_text(event)
        or _reload_text(event)
        or _upgrade_text(event)
        or _fields_text(event)
    )


def _certificate_text(event: e.Event) -> str | None:
    match event:
        case e.CertificateLoaded(file, names, not_after):
            return f"certificate of {few(names)} loaded from {file}, valid until {not_after[:10]}"
        case e.CertificateRejected(file, why):
            return f"certificate not loaded, what was served before goes on: {file} {why}"
        case e.CertificateExpiring(file, names, not_after, days_left):
            left = f"expires in {count(days_left, 'day')}" if days_left > 0 else "expires within a day"
            left = "has expired" if days_left < 0 else left
            return f"certificate of {few(names)} {left}: {file} is valid until {not_after}"
    return None


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _serve_text(event: e.Event) -> str | None:
    match event:
        case e.ServeStarted(pid, workers, listeners, control):
            where = ", ".join(listeners)
            return f"serving on {where} with {count(workers, 'worker')}, pid {pid}, control socket {control}"
        case e.ServeStopping(why, grace_s):
            return f"stopping ({why}): work in hand has {grace_s:g}s"
        case e.ServeStopped(why):
            return f"stopped ({why})"
        case e.ConfigRejected(path, problems):
            return f"{path} is not valid, the configuration in use stays:\n{problems}".rstrip()
        case e.WorkerStarted(worker, pid):
            return f"worker {worker} started, pid {pid}"
        case e.WorkerExited(worker, pid, how):
            return f"worker {worker} (pid {pid}) ended: {how}; it is replaced"
        case e.WorkerGaveAway(worker, moved, left, duration_s, not_taken, why):
            finishes = f", finishes {left}" if left else ""
            refused = f" ({not_taken} were not taken: {why})" if not_taken else ""
            given = f"worker {worker} has given {count(moved, 'connection')} to new workers"
            return f"{given} in {seconds(duration_s)}{finishes}{refused}"
        case e.WorkerHung(worker, pid, epoch):
            return f"worker {worker} (pid {pid}) does not acknowledge table {epoch}: killed and replaced"
    return None


def _backend_text(event: e.Event) -> str | None:
    match event:
        case e.BackendStarting(_, backend, pid, address):
            return f"{backend} starting, pid {pid}, {address}"
        case e.BackendReady(_, backend, after_s):
            return f"{backend} ready after {seconds(after_s)}"
        case e.BackendProved(_, backend, after_s):
            return f"{backend} proved after {seconds(after_s)}"
        case e.BackendNotReady(_, backend, why, output):
            return _with_output(f"{backend} did not become ready: {why}", output)
        case e.BackendUnhealthy(_, backend, why, back_in_s):
            return f"{backend} unhealthy: {why}" + (f"; back in {seconds(back_in_s)}" if back_in_s is not None else "")
        case e.BackendHealthy(_, backend, why):
            return f"{backend} healthy again" + (f": {why}" if why else "")
        case e.BackendExited(_, backend, pid, how, restart_in_s, output):
            again = "not started again" if restart_in_s is None else f"started again in {seconds(restart_in_s)}"
            ended = f"did not start: {how}" if pid is None else f"(pid {pid}) ended: {how}"
            return _with_output(f"{backend} {ended}; {again}", output)
        case e.BackendRecycled(_, backend, pid, after_s, restart_in_s):
            again = f"in {seconds(restart_in_s)}" if restart_in_s else "at once"
            return (
                f"{backend} (pid {pid}) recycled itself after {seconds(after_s)} (exit code 0); started again {again}"
            )
        case e.BackendFailed(_, backend, crashes, within_s):
            return f"{backend} failed: {count(crashes, 'crash', 'crashes')} within {within_s:g}s, not started again"
        case e.BackendDraining(_, backend, leases):
            return f"{backend} draining: {leases} in hand"
        case e.BackendDrained(_, backend, after_s, cut):
            return f"{backend} drained in {seconds(after_s)}" + (f", {cut} cut" if cut else "")
        case e.BackendTakenBack(_, backend):
            return f"{backend} taken back"
        case e.BackendStopped(_, backend, how, _, why):
            return f"{backend} stopped ({how})" + (f": {why}" if why else "")
    return None


def _reload_text(event: e.Event) -> str | None:
    match event:
        case e.ReloadStarted(_, trigger, pools, verb):
            what = event.backend or ", ".join(pools)
            why = f": it {event.why}" if event.why else ""
            return f"{verb} of {what} {'goes on' if trigger == 'resume' else 'started'} ({trigger}){why}"
        case e.PoolResolved(pool, came, gone):
            changes = [f"{', '.join(those)} {what}" for those, what in ((came, "came"), (gone, "gone")) if those]
            return f"{pool}: the names of its targets have other addresses: {'; '.join(changes)}"
        case e.PoolPaused(pool, _, maintenance=True):
            return f"{pool} is in maintenance: its requests get 503, until lbproxy unpause {pool}"
        case e.PoolPaused(pool, max_wait_s):
            each = f"up to {max_wait_s:g}s each, " if max_wait_s is not None else ""
            return f"{pool} is paused: its requests wait, {each}until lbproxy unpause {pool}"
        case e.PoolUnpaused(pool):
            return f"{pool} serves again"
        case e.ReloadPaused(_, pool, why):
            return f"{pool}: stopped half-way: {why}; lbproxy resume, abort or rollback {pool} goes on from here"
        case e.ReloadRollingBack(_, pool, why):
            return f"{pool}: rolling back: {why}"
        case e.ReloadDone():
            return verdict(event)
        case e.ReloadFinished(_, _, text):
            return text
    return None


def _upgrade_text(event: e.Event) -> str | None:
    match event:
        case e.UpgradeStarted(_, from_version):
            return f"upgrade of lbproxy {from_version} started: the installed program is tried"
        case e.UpgradeProved(_, version, after_s, backends, workers):
            adopts = f"{count(backends, 'backend')} and {count(workers, 'worker')}"
            return f"lbproxy {version} has passed its trial after {seconds(after_s)} and takes over {adopts}"
        case e.UpgradeDone(_, "ok", _, from_version, version, duration_s):
            return f"upgraded lbproxy {from_version} to {version} in {seconds(duration_s)}"
        case e.UpgradeDone(_, _, _, from_version, why=why, output=output):
            return "\n".join([f"not upgraded, lbproxy {from_version} goes on as before: {why}", *output])
    return None


def verdict(done: e.ReloadDone) -> str:
    """One pool's verdict line (CONTRACT.md 1)."""
    why = f" ({done.why})" if done.why else ""
    served = f"{count(done.requests, 'request')} served meanwhile"
    counts = f"{served}, {done.failed} failed, {count(done.cut, 'connection')} cut"
    took = f"in {seconds(done.duration_s)}"
    match done.result:
        case "ok" if done.verb == "scale":
            return f"scaled {done.pool} to {done.size} until the next reload {took}: {counts}"
        case "ok" if done.verb == "drain":
            return f"drained {done.backend} {took}: {counts}"
        case "ok" if done.verb == "restart":
            return f"restarted {done.backend or done.pool} {took}: {counts}"
        case "ok" if done.verb == "recycle":
            return f"recycled {done.backend or done.pool} {took}{why}: {counts}"
        case "ok" if done.verb == "rollback":
            same = f" (as {done.same_as})" if done.same_as is not None else ""
            return f"rolled back {done.pool}: generation {done.generation}{same} serves {took}: {counts}"
        case "paused":
            return f"{done.verb} of {done.pool} stopped half-way {took}{why}: {counts}"
        case "ok" if done.generation == done.from_generation:
            return f"applied the configuration of {done.pool}, generation {done.generation} serves on: {counts}"
        case "ok":
            return f"reloaded {done.pool} to generation {done.generation} {took}: {counts}"
        case "rolled_back":
            return f"rolled back {done.pool} to generation {done.from_generation} {took}{why}: {counts}"
        case "failed":
            return f"{done.verb} of {done.pool} failed, capacity is reduced, {took}{why}: {counts}"
    return f"{done.verb} of {done.pool} {done.result} {took}{why}: {counts}"


def comparison(done: e.ReloadDone) -> str | None:
    """How the new generation did beside the old one, over the same time; None if not both have answered something."""
    facts = {one["generation"]: one for one in done.compared}
    old, new = facts.get(done.from_generation), facts.get(done.generation)
    if old is None or new is None or old is new:
        return None
    return (
        f"{done.pool}: generation {done.generation} beside {done.from_generation}: "
        f"5xx {_share(new)} and {_share(old)}, p99 {_duration(new)} and {_duration(old)}, "
        f"the largest backend {_memory(new)} and {_memory(old)}"
    )


def _share(facts: dict[str, Any]) -> str:
    return f"{100 * facts['errors'] / facts['requests']:.2f} %"


def _duration(facts: dict[str, Any]) -> str:
    return f"{1000 * facts['p99_s']:.3g} ms" if facts["p99_s"] is not None else "-"


def _memory(facts: dict[str, Any]) -> str:
    size_bytes = facts["backend_memory_bytes"]
    return f"{size_bytes / 2**20:.1f} MiB" if size_bytes is not None else "-"


def seconds(duration_s: float) -> str:
    return f"{duration_s:.1f}s"


def _with_output(text: str, output: tuple[str, ...]) -> str:
    return "\n".join([text, *(f"| {line}" for line in output)])


def _fields_text(event: e.Event) -> str:
    return " ".join([event.name, *(f"{f.name}={getattr(event, f.name)}" for f in dataclasses.fields(event))])
