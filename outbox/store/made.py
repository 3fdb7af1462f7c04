"""What guards a PostgreSQL database: as its catalogue has it, and as schema.py and triggers.py describe it.

The server writes expressions down in its own manner (parentheses, casts, IN as = ANY of an array), which differs a
little from version to version: both sides are compared without that.
"""

from __future__ import annotations

import re
from functools import cache

from sqlalchemy import (
    CheckConstraint,
    Connection,
    Constraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)

from outbox.store.plpgsql import REFUSE, ROOMS, statements
from outbox.store.schema import metadata

_FOUND = {
    "trigger": """
        SELECT tgname, pg_get_triggerdef(pg_trigger.oid) || CASE tgenabled WHEN 'O' THEN '' ELSE ' disabled' END
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE NOT tgisinternal AND relnamespace = 'public'::regnamespace AND relkind = 'r'""",
    "index": """
        SELECT relname, pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' invalid' END
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relnamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)""",
    "constraint": """
        SELECT conname, 'ON ' || relname || ' ' || pg_get_constraintdef(pg_constraint.oid)
        FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
        WHERE relnamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'p', 'f')""",
    "rule": "SELECT rulename, definition FROM pg_rules WHERE schemaname = 'public'",
    "function": """
        SELECT proname, prosrc || CASE WHEN prosecdef THEN ' definer ' ELSE '' END
        || coalesce(array_to_string(proconfig, ' '), '')
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prorettype = 'trigger'::regtype""",
}
_OURS = "alembic_version"


def found_in_server(connection: Connection) -> dict[str, str]:
    """Kind and name of each trigger, function, index, rule and constraint there is, with its text."""
    return {
        f"{kind} {name}": _folded(said)
        for kind, query in _FOUND.items()
        for name, said in connection.execute(text(query))
        if not str(name).startswith(_OURS)
    }


@cache
def expected_in_server() -> dict[str, str]:
    """The same, as it should be."""
    expected = {}
    for statement in statements():
        kind, name = statement.split("(")[0].replace("public.", "").split()[1:3]
        expected[f"{kind.lower()} {name}"] = _folded(_function(statement) if kind == "FUNCTION" else statement)
    for table in metadata.tables.values():
        expected |= {f"index {index.name}": _folded(_index(index)) for index in table.indexes}
        expected |= {
            f"constraint {_name(table, one)}": _folded(f"ON {table.name} {_constraint(one)}")
            for one in table.constraints
        }
    places = "CREATE UNIQUE INDEX journal_places ON journal USING btree (place)"
    return expected | {"index journal_places": _folded(places)}


def _function(statement: str) -> str:
    body = statement.split("$$")[1]
    if statement.startswith((f"CREATE FUNCTION public.{REFUSE}", f"CREATE FUNCTION public.{ROOMS}")):
        return body
    return f"{body} definer search_path=pg_catalog, pg_temp"


def _index(index: Index) -> str:
    assert index.table is not None
    columns = ", ".join(column.name for column in index.columns)
    where: str | None = index.info.get("where")
    unique = "UNIQUE " if index.unique else ""
    rows = f" WHERE {where}" if where is not None else ""
    return f"CREATE {unique}INDEX {index.name} ON {index.table.name} USING btree ({columns}){rows}"


def _name(table: Table, constraint: Constraint) -> str:
    """As it is called, or as the server calls one without a name."""
    if constraint.name:
        return str(constraint.name)
    if isinstance(constraint, PrimaryKeyConstraint):
        return f"{table.name}_pkey"
    assert isinstance(constraint, ForeignKeyConstraint)
    return f"{table.name}_{'_'.join(constraint.column_keys)}_fkey"


def _constraint(constraint: Constraint) -> str:
    match constraint:
        case CheckConstraint(sqltext=condition):
            return f"CHECK ({condition})"
        case PrimaryKeyConstraint():
            return f"PRIMARY KEY ({', '.join(column.name for column in constraint.columns)})"
        case UniqueConstraint():
            return f"UNIQUE ({', '.join(column.name for column in constraint.columns)})"
        case ForeignKeyConstraint():
            (element,) = constraint.elements
            referred = f"{element.column.table.name}({element.column.name})"
            late = " DEFERRABLE INITIALLY DEFERRED" if constraint.deferrable else ""
            return f"FOREIGN KEY ({constraint.column_keys[0]}) REFERENCES {referred}{late}"
    raise AssertionError(f"{constraint!r} is no constraint that this schema has")


def _folded(sql: str) -> str:
    """Words alone, in one case: without casts, parentheses and the schema's name, and IN and BETWEEN said as one."""
    words = re.sub(r"::(?:text|bigint|bytea|integer)(?:\[\])?", "", sql.replace("public.", ""))
    words = re.sub(r"<> ALL \(+ARRAY\[(.*?)\]\)+", r" NOT IN (\1)", words)
    words = re.sub(r"= ANY \(+ARRAY\[(.*?)\]\)+", r" IN (\1)", words)
    words = re.sub(r"(\w+) BETWEEN (\S+) AND (\S+)", r"\1 >= \2 AND \1 <= \3", words)
    return " ".join(re.sub(r"[()]", " ", words).replace(" ,", ",").lower().split())
