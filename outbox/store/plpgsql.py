"""The rules of store/triggers.py as PostgreSQL has them, and what only it needs: whose transition it is, and TRUNCATE.

What can be seen in the row itself is the trigger's WHEN; what has to be looked up is a function of the rule's name,
which sees every row whoever writes, and no table or operator of anybody's but ours.
"""

from __future__ import annotations

import re

from outbox.core.lifecycle import EDGES, Edge, Room
from outbox.store.schema import metadata
from outbox.store.triggers import RULES, Count, Guard

SHARDS = 64  # rows over which a count is spread, so that one server process seldom waits for another
ROLES = {room: f"outbox_{room}" for room in Room}
REFUSE = "outbox_refuse"
ROOMS = "outbox_rooms"
_RAISE = "RAISE EXCEPTION USING MESSAGE = {words}, ERRCODE = 'integrity_constraint_violation';"
_SAFE = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
_COLUMNS = "#variable_conflict use_column\n"  # FOUND is a variable of plpgsql's too
_NOT_THIS_ROOMS = "outbox: this is not for this room to do"


def statements() -> tuple[str, ...]:
    """Everything that guards a database, in an order in which it can be made."""
    functions = {**_shared(), **{rule.name: text for rule in RULES if (text := _function(rule)) is not None}}
    triggers = [_trigger(rule) for rule in RULES]
    return (*functions.values(), *triggers, *_rooms(), *(_untruncated(table) for table in metadata.tables))


def _shared() -> dict[str, str]:
    return {
        REFUSE: _definition(REFUSE, "", f"BEGIN\n    {_RAISE.format(words='TG_ARGV[0]')}\nEND"),
        ROOMS: _definition(ROOMS, "", _rooms_body()),
    }


def _definition(name: str, attributes: str, body: str) -> str:
    said = f" {attributes}" if attributes else ""
    return f"CREATE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql{said} AS $$\n{body}\n$$"


def in_words_of_postgres(condition: str) -> str:
    """A condition, with what SQLite says differently said as PostgreSQL has it."""
    return re.sub(r"IS NOT ((?:OLD|NEW)\.\w+)", r"IS DISTINCT FROM \1", condition)


def _qualified(condition: str) -> str:
    return re.sub(r"\b(FROM|UPDATE) (?!public\.)(\w+)", r"\1 public.\2", condition)


def _function(rule: Guard | Count) -> str | None:
    """The function that looks other rows up, or counts; None where the trigger's WHEN says it all."""
    if isinstance(rule, Count):
        shard = f" AND shard = mod(pg_backend_pid(), {SHARDS})" if rule.is_sharded else ""
        does = f"UPDATE public.{rule.counted_in} SET {rule.column} = {rule.column} + 1 WHERE {rule.where}{shard};"
        return _definition(rule.name, _SAFE, f"BEGIN\n    {does}\n    RETURN NULL;\nEND")
    if rule.lookup is None:
        return None
    held = f"    PERFORM 1 {_qualified(rule.held)} FOR SHARE;\n" if rule.held else ""
    row = "OLD" if rule.event == "DELETE" else "NEW"
    refusal = _RAISE.format(words=f"'outbox: {rule.refusal}'")
    looked_up = f"    IF {_qualified(rule.lookup)} THEN\n        {refusal}\n    END IF;\n"
    return _definition(rule.name, _SAFE, f"{_COLUMNS}BEGIN\n{held}{looked_up}    RETURN {row};\nEND")


def _trigger(rule: Guard | Count) -> str:
    moment = "BEFORE" if isinstance(rule, Guard) else "AFTER"
    is_plain = isinstance(rule, Guard) and rule.lookup is None
    calls = f"{REFUSE}('outbox: {rule.refusal}')" if isinstance(rule, Guard) and is_plain else f"{rule.name}()"
    when = f" WHEN ({in_words_of_postgres(rule.when)})" if rule.when else ""
    return _made(rule.name, f"{moment} {rule.event}", rule.table, f"FOR EACH ROW{when}", calls)


def _made(name: str, event: str, table: str, rows: str, calls: str) -> str:
    return f"CREATE TRIGGER {name} {event} ON public.{table} {rows} EXECUTE FUNCTION {calls}"


def _untruncated(table: str) -> str:
    calls = f"{REFUSE}('outbox: {table} are never deleted')"
    return _made(f"{table}_whole", "BEFORE TRUNCATE", table, "FOR EACH STATEMENT", calls)


def _rooms() -> tuple[str, ...]:
    changed = "FOR EACH ROW WHEN (NEW.state <> OLD.state)"
    return (
        _made("drafts_rooms", "BEFORE UPDATE OF state", "drafts", changed, f"{ROOMS}()"),
        _made("drafts_rooms_birth", "BEFORE INSERT", "drafts", "FOR EACH ROW", f"{ROOMS}()"),
    )


def _rooms_body() -> str:
    """A role that is a room's may go along that room's edges alone; one that is none's, such as the owner, is free."""
    lines = [
        "DECLARE",
        "    edge text := CASE TG_OP WHEN 'INSERT' THEN '' ELSE OLD.state END || ' ' || NEW.state;",
        "    is_room boolean := false;",
        "BEGIN",
    ]
    for room, role in ROLES.items():
        edges = sorted({_edge(edge) for edge in EDGES if room in edge.rooms})
        allowed = ", ".join(f"'{edge}'" for edge in edges)
        lines += [
            f"    IF pg_catalog.pg_has_role(pg_catalog.to_regrole('{role}')::oid, 'MEMBER') THEN",
            f"        IF edge IN ({allowed}) THEN",
            "            RETURN NEW;",
            "        END IF;",
            "        is_room := true;",
            "    END IF;",
        ]
    known = ", ".join(
        f"'{edge}'" for edge in sorted({_edge(edge) for edge in EDGES})
    )  # others are not for this trigger
    refusal = _RAISE.format(words=f"'{_NOT_THIS_ROOMS}'")
    lines += [f"    IF is_room AND edge IN ({known}) THEN", f"        {refusal}", "    END IF;"]
    return "\n".join([*lines, "    RETURN NEW;", "END"])


def _edge(edge: Edge) -> str:
    return f"{edge.source or ''} {edge.target}"
