"""What `status` says of a pool beside its backends: a change that runs or stands half-way; differences to the file."""

from typing import Any


def pool_notes(name: str, pool: dict[str, Any]) -> list[str]:
    """One line each."""
    notes = []
    running = pool.get("reload")
    if running and running["step"] == "paused":
        notes.append(
            f"{running['verb']} {running['id']} stopped half-way to generation {running['generation']}: "
            f"{running.get('why', '')}; lbproxy resume, abort or rollback {name} goes on from here"
        )
    elif running:
        notes.append(f"{running['verb']} {running['id']} to generation {running['generation']}: {running['step']}")
    paused = pool.get("paused")
    if paused and paused["maintenance"]:
        notes.append(f"in maintenance: requests get 503, until lbproxy unpause {name}")
    elif paused:
        each = f"up to {paused['max_wait_s']:g}s each, " if paused.get("max_wait_s") is not None else ""
        notes.append(f"paused: requests wait, {each}until lbproxy unpause {name}")
    if pool.get("differs_from_file"):
        notes.append(f"not as in the file, until the next reload: {', '.join(pool['differs_from_file'])}")
    return notes
