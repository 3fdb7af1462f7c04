"""What a worker reads of the drafts that it has just claimed: all of them with three statements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from outbox.core.errors import Code, DraftUnknown
from outbox.core.grant import Grant
from outbox.core.signed import SignedDraft
from outbox.core.signing import Signature
from outbox.store.prepared import Prepared
from outbox.store.rows import grants_of_rows, signed_of_row, signed_rows
from outbox.store.schema import drafts, evidence, grants


class _Elements(FunctionElement[str]):
    """The elements of a JSON list of texts, as rows."""

    inherit_cache = True


@compiles(_Elements)
def _elements(element: _Elements, compiler: Any, **given: Any) -> str:
    listed = compiler.process(element.clauses, **given)
    if compiler.dialect.name == "postgresql":
        return f"jsonb_array_elements_text(CAST({listed} AS jsonb))"
    return f"json_each({listed})"


def _of_these() -> Select[Any]:
    return select(_Elements(bindparam("ids")).table_valued("value").c.value)


_DRAFTS = Prepared(signed_rows().where(drafts.c.id.in_(_of_these())), "ids")
_GRANTS = Prepared(select(grants).where(grants.c.draft_id.in_(_of_these())).order_by(grants.c.at, grants.c.id), "ids")
_PROOFS = Prepared(
    select(evidence.c.draft_id, evidence.c.source, evidence.c.detail)
    .where(evidence.c.draft_id.in_(_of_these()), evidence.c.found == 1)
    .order_by(evidence.c.id),
    "ids",
)


@dataclass(slots=True)
class Loaded:
    """The rows of one draft, not looked at yet; `proof` is the source and detail of evidence that it was sent."""

    draft_id: str
    row: Any = None
    granted: list[Any] = field(default_factory=list)
    proof: tuple[str, str] | None = None

    def draft(self) -> SignedDraft:
        """The draft with its octets. Raises DraftUnknown, or VerificationFailed where it cannot be read."""
        if self.row is None:
            raise DraftUnknown(Code.DRAFT_UNKNOWN, f"there is no draft {self.draft_id}")
        return signed_of_row(self.row)

    def grants(self) -> list[tuple[Grant, Signature]]:
        """Every grant stored for it. Raises VerificationFailed where one cannot be read."""
        return grants_of_rows(self.draft_id, self.granted)


def load_for_sending(connection: Connection, draft_ids: Sequence[str]) -> dict[str, Loaded]:
    """The rows of each draft, by its id."""
    loaded = {draft_id: Loaded(draft_id) for draft_id in draft_ids}
    asked = json.dumps(list(draft_ids))
    for row in _DRAFTS.rows(connection, asked):
        loaded[row.id].row = row
    for row in _GRANTS.rows(connection, asked):
        loaded[row.draft_id].granted.append(row)
    for row in _PROOFS.rows(connection, asked):
        loaded[row.draft_id].proof = loaded[row.draft_id].proof or (row.source, row.detail)
    return loaded
