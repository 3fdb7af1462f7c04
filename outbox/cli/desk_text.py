"""Cases at the desk and the standing of the whole, as JSON (the contract's keys) and as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from outbox.cli.render import Json, moment, rfc3339, shown

if TYPE_CHECKING:
    from outbox.operator.settling import Case
    from outbox.operator.status import Status
    from outbox.store.figures import Heating

_FINDINGS = {"not_sent": "NOT SENT", "sent": "SENT", "unknown": "UNKNOWN"}
_FOUND = {True: "found", False: "not there", None: "proves nothing"}


def case_json(case: Case) -> Json:
    """One line of `outbox reconcile --json`."""
    held = case.held
    return {
        "id": held.draft_id,
        "kind": held.kind,
        "since": rfc3339(held.since),
        "phase": held.phase,
        "gap_at": rfc3339(held.gap_at),
        "finding": case.finding,
        "because": case.because,
        "worker": {"id": held.worker_id, "alive": case.is_alive, "last_seen": rfc3339(case.last_seen)},
        "relay": case.relay,
        "message_id": case.message_id,
        "recipients": list(case.recipients),
        "last_reply": case.last_reply,
        "may_settle_at": rfc3339(case.may_settle_at) if case.may_settle_at else None,
        "evidence": [
            {"source": one.source, "found": one.found, "detail": one.detail, "at": rfc3339(one.at)}
            for one in case.evidence
        ],
    }


def case_text(case: Case, now: int) -> str:
    """One case, as a tired person reads it: what it is, what is known, what to do."""
    held = case.held
    rows = [
        ("Draft", f"{held.draft_id}  {shown(case.subject)}"),
        ("To", shown(", ".join(case.recipients))),
        ("Message-ID", shown(case.message_id)),
        ("Since", f"{moment(held.since)}, for {_duration(now - held.since)}"),
        ("Phase", held.phase + (f", in the gap since {moment(held.gap_at)}" if held.gap_at else "")),
        ("Worker", f"{held.worker_id}, pid {held.pid} on {held.host}, {'alive' if case.is_alive else 'dead'}"),
        ("Relay", f"{case.relay}; last heard: {shown(case.last_reply or 'nothing')}"),
        *(("Evidence", f"{one.source}: {_FOUND[one.found]}: {shown(one.detail)}") for one in case.evidence),
        ("Finding", f"{_FINDINGS[case.finding]}: {shown(case.because)}"),
        ("Do", case.todo(now)),
    ]
    return "".join(f"{label:<11}{value}\n" for label, value in rows)


def _duration(microseconds: int) -> str:
    minutes = max(microseconds, 0) // 60_000_000
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"


def status_json(status: Status) -> Json:
    """`outbox status --json`."""
    return {
        "states": {state.value: number for state, number in status.states.items()},
        "in_doubt": status.in_doubt,
        "oldest_approved": rfc3339(status.oldest_approved),
        "paused": status.pause is not None or status.switch is not None,
        "pause_reason": status.pause.reason if status.pause else status.switch,
        "alerts": [{"code": alert.code.value, "message": alert.message} for alert in status.alerts],
        "thermal": _heating_json(status.thermal),
        "thermal_system": _heating_json(status.thermal_system),
        "workers": [
            {
                "id": worker.id,
                "host": worker.host,
                "pid": worker.pid,
                "started_at": rfc3339(worker.started_at),
                "last_seen": rfc3339(worker.last_seen),
                "alive": worker.is_alive,
            }
            for worker in status.workers
        ],
        "revision": status.revision,
    }


def _heating_json(heating: Heating) -> Json:
    return {
        "open": heating.is_open,
        "until": rfc3339(heating.until),
        "used": heating.used,
        "limit": heating.limit,
    }


def status_text(status: Status) -> str:
    """`outbox status`: a screen."""
    return "\n".join(_lines(status))


def _lines(status: Status) -> Iterator[str]:
    counted = ", ".join(f"{number} {state.value}" for state, number in status.states.items() if number)
    yield f"Drafts    {counted or 'none'}"
    yield f"In doubt  {status.in_doubt}" + ("  (`outbox reconcile`)" if status.in_doubt else "")
    if status.oldest_approved is not None:
        yield f"Waiting   since {moment(status.oldest_approved)}"
    yield f"Paused    {_paused(status)}"
    tripped = f"open until {moment(status.thermal.until)} at least; " if status.thermal.until is not None else ""
    yield f"Thermal   {tripped}{status.thermal.used} of {status.thermal.limit} places taken"
    alive = [worker for worker in status.workers if worker.is_alive]
    named = [f"pid {one.pid} on {one.host} since {moment(one.started_at)}" for one in alive]
    yield f"Workers   {', '.join(named) or 'none'}"
    yield f"Revision  {status.revision}"
    for alert in status.alerts:
        yield f"ALERT     {alert.code.value}: {shown(alert.message)}"


def _paused(status: Status) -> str:
    if status.pause is not None:
        return f"since {moment(status.pause.at)} by {status.pause.by}: {shown(status.pause.reason)}"
    return shown(status.switch) if status.switch is not None else "no"
