"""What each room's role may do on PostgreSQL: DESIGN's table of rooms, enforced by the server.

A role of a room owns nothing, so it can take no guard away; what it may write is here, down to the column; along which
edges, the trigger `drafts_rooms` says. The drafter's sees octets of drafts only, never those of the outbox's own mail.
"""

from __future__ import annotations

from outbox.core.lifecycle import Room
from outbox.store.plpgsql import ROLES
from outbox.store.schema import metadata
from outbox.store.triggers import SIGNED_COLUMNS

_ALL = "*"
_JOURNAL = tuple(column.name for column in metadata.tables["journal"].columns)
_BORN = (*SIGNED_COLUMNS, "state")
_NOTICE = (*_BORN, "not_before")
_ENDED = ("state", "not_before", "attempt_id", "error_code", "error_message")
_CLOSED = ("phase", "outcome", "code", "enhanced", "text", "queue_id", "ended_at")
_GAP = ("wire_digest", "gap_at")
_STORY = (
    "drafts", "messages", "resubmissions", "rejections", "grants", "requests", "attempts", "recipients", "settlements",
    "workers", "gate", "counters", "pause", "clock", "identity", "alembic_version",
)  # fmt: skip
_EVERYTHING = (*metadata.tables, "alembic_version")

READS: dict[Room, tuple[str, ...]] = {
    Room.DRAFTER: _STORY,
    Room.INBOX: _EVERYTHING,
    Room.WORKER: (*_STORY, "evidence", "journal"),
    Room.OPERATOR: _EVERYTHING,
}
INSERTS: dict[Room, dict[str, tuple[str, ...]]] = {
    Room.DRAFTER: {"drafts": _BORN, "messages": (_ALL,), "resubmissions": (_ALL,), "journal": _JOURNAL},
    Room.INBOX: {
        "drafts": _NOTICE,
        "messages": (_ALL,),
        "journal": _JOURNAL,
        **dict.fromkeys(
            (
                "requests", "grants", "rejections", "replies", "proofs", "seen_signatures", "codes", "wrong_codes",
                "signed_replies", "tellings", "evidence",
            ),
            (_ALL,),
        ),
    },
    Room.WORKER: {
        "drafts": _NOTICE,
        "messages": (_ALL,),
        "journal": _JOURNAL,
        **dict.fromkeys(("workers", "attempts", "recipients", "evidence", "settlements"), (_ALL,)),
    },
    Room.OPERATOR: {
        "drafts": _NOTICE,
        "messages": (_ALL,),
        "journal": _JOURNAL,
        **dict.fromkeys(
            ("resubmissions", "grants", "rejections", "workers", "attempts", "evidence", "settlements"), (_ALL,)
        ),
    },
}  # fmt: skip
UPDATES: dict[Room, dict[str, tuple[str, ...]]] = {
    Room.DRAFTER: {"drafts": ("state", "stop_asked_at")},
    Room.INBOX: {
        "drafts": ("state", "not_before", "stop_asked_at", "error_code", "error_message"),
        "requests": ("spent_at",),
        "tellings": ("reminded_at", "told_at"),
    },
    Room.WORKER: {
        "drafts": _ENDED,
        "attempts": (*_CLOSED, *_GAP),
        "workers": ("ended_at",),
        "gate": ("tripped_at", "until"),
    },
    Room.OPERATOR: {
        "drafts": (*_ENDED, "stop_asked_at"),
        "attempts": (*_CLOSED, *_GAP),
        "workers": ("ended_at",),
        "pause": ("paused_at", "reason", "paused_by"),
        "clock": ("believed_at", "ignored_until"),
    },
}
DELETES: dict[Room, tuple[str, ...]] = {Room.OPERATOR: ("messages",)}  # prune; a trigger keeps those of live drafts
_LINKS = ("writer", "seq", "mac")  # of the journal: what a writer finds its chain's head again by
_DRAFTER = ROLES[Room.DRAFTER]
_OTHERS = ", ".join(role for room, role in ROLES.items() if room is not Room.DRAFTER)
_NOT_SYSTEM = "SELECT 1 FROM public.drafts WHERE drafts.id = messages.draft_id AND drafts.kind <> 'system'"
_POLICIES = {
    "outbox_read": f"FOR SELECT TO {_DRAFTER} USING (EXISTS ({_NOT_SYSTEM}))",
    "outbox_new": f"FOR INSERT TO {_DRAFTER} WITH CHECK (true)",
    "outbox_rooms": f"TO {_OTHERS} USING (true) WITH CHECK (true)",
}


def role_statements() -> tuple[str, ...]:
    """SQL that makes the four roles and gives each what is its own, and nothing to anybody else. It may be repeated."""
    everyone = ", ".join(ROLES.values())
    return (
        *(_created(role) for role in ROLES.values()),
        _of_database("REVOKE ALL", "FROM PUBLIC"),
        _of_database("GRANT CONNECT", f"TO {everyone}"),
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA public TO {everyone}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {everyone}",
        "ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY",
        *(f"DROP POLICY IF EXISTS {name} ON public.messages" for name in _POLICIES),
        *(f"CREATE POLICY {name} ON public.messages {words}" for name, words in _POLICIES.items()),
        *(grant for room in Room for grant in _grants(room)),
    )


def _of_database(verb: str, whose: str) -> str:
    return f"DO $$ BEGIN EXECUTE '{verb} ON DATABASE ' || quote_ident(current_database()) || ' {whose}'; END $$"


def _created(role: str) -> str:
    """One that may not log in: people and services become members of it."""
    return (
        f"DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role} NOLOGIN; END IF; "
        "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )


def _grants(room: Room) -> list[str]:
    role = ROLES[room]
    granted = [f"GRANT SELECT ON {_tables(READS[room])} TO {role}"]
    if "journal" not in READS[room]:
        granted.append(f"GRANT SELECT ({', '.join(_LINKS)}) ON public.journal TO {role}")
    for verb, allowed in (("INSERT", INSERTS[room]), ("UPDATE", UPDATES[room])):
        for table, columns in allowed.items():
            of = "" if columns == (_ALL,) else f" ({', '.join(columns)})"
            granted.append(f"GRANT {verb}{of} ON public.{table} TO {role}")
    if room in DELETES:
        granted.append(f"GRANT DELETE ON {_tables(DELETES[room])} TO {role}")
    return granted


def _tables(names: tuple[str, ...]) -> str:
    return ", ".join(f"public.{name}" for name in names)
