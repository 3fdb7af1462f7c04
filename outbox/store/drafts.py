"""Insert and withdraw drafts: the drafter's verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, bindparam, insert, select, text

from outbox.core.errors import Code, DraftUnknown, PolicyRefused
from outbox.core.finding import printable
from outbox.core.lifecycle import SYSTEM_KIND, State, Verb
from outbox.core.signed import SignedDraft
from outbox.store.dialect import insert_or_ignore
from outbox.store.journal import Fact, detail_text
from outbox.store.rows import signed_columns
from outbox.store.schema import drafts, messages, rejections, resubmissions
from outbox.store.stop import cancel_if_not_sent
from outbox.store.writer import Transaction

OWN_KEYS = "outbox:"  # what idempotency keys of the outbox's own begin with; no agent's may
_KEY = ("agent", "idempotency_key")
_BY_KEY: Select[Any] = select(
    drafts.c.id, drafts.c.agent, drafts.c.idempotency_key, drafts.c.fingerprint, drafts.c.state
).where(
    drafts.c.agent.in_(bindparam("agents", expanding=True)),
    drafts.c.idempotency_key.in_(bindparam("keys", expanding=True)),
)
_REJECTED: Select[Any] = (
    select(drafts.c.id, drafts.c.fingerprint, rejections.c.approver, rejections.c.reason)
    .join(rejections, rejections.c.draft_id == drafts.c.id)
    .where(text("drafts.state = 'rejected'"))
    .order_by(rejections.c.at, drafts.c.id)
)
_ONE_REJECTED = _REJECTED.where(drafts.c.fingerprint == bindparam("fingerprint"))
_SOME_REJECTED = _REJECTED.where(drafts.c.fingerprint.in_(bindparam("fingerprints", expanding=True)))
_INSERT = insert_or_ignore(drafts, *_KEY)
_INSERT_MESSAGE = insert(messages)
_INSERT_RESUBMISSION = insert(resubmissions)


@dataclass(frozen=True, slots=True)
class NewDraft:
    """What is to be inserted as pending, and the agent's own key for it."""

    signed: SignedDraft
    idempotency_key: str | None = None

    @property
    def id(self) -> str:
        """The draft's."""
        return self.signed.draft.id


def insert_pending(tx: Transaction, signed: SignedDraft, *, now: int, idempotency_key: str | None) -> str:
    """Insert a draft as pending and return its id, or that of the same draft under the same key.

    Raises PolicyRefused: idempotency_conflict where the key was used for something else, already_rejected where the
    same was rejected before and the draft does not say why it is made again.
    """
    (result,) = insert_many_pending(tx, [NewDraft(signed, idempotency_key)], now=now)
    if isinstance(result, PolicyRefused):
        raise result
    return result


def insert_many_pending(tx: Transaction, new: Sequence[NewDraft], *, now: int) -> list[str | PolicyRefused]:
    """Insert many, and say of each, in their order, what `insert_pending` would return or raise."""
    named = _named(tx, new)
    results: dict[str, str | PolicyRefused] = {
        one.id: _same_draft(one, named[key]) for one in new if (key := _key(one)) in named
    }
    unnamed = [one for one in new if one.id not in results]
    results |= _what_was_rejected(tx, unnamed)
    results |= _insert(tx, [one for one in unnamed if one.id not in results], now)
    return [results[one.id] for one in new]


def _key(one: NewDraft) -> tuple[str, str | None]:
    return one.signed.draft.agent, one.idempotency_key


def _named(tx: Transaction, new: Sequence[NewDraft]) -> dict[tuple[str, str | None], Row[Any]]:
    """The drafts that are there under the keys of these."""
    keys = {_key(one) for one in new if one.idempotency_key is not None}
    if not keys:
        return {}
    asked = {"agents": sorted({agent for agent, _ in keys}), "keys": sorted({str(key) for _, key in keys})}
    return {(row.agent, row.idempotency_key): row for row in tx.connection.execute(_BY_KEY, asked)}


def _insert(tx: Transaction, new: Sequence[NewDraft], now: int) -> dict[str, str | PolicyRefused]:
    if not new:
        return {}
    tx.connection.execute(
        _INSERT,
        [
            {**signed_columns(one.signed), "state": State.PENDING.value, "idempotency_key": one.idempotency_key}
            for one in new
        ],
    )
    named = _named(tx, new)  # one key may be there twice among these, and on PostgreSQL another may have come first
    born = [one for one in new if one.idempotency_key is None or named[_key(one)].id == one.id]
    _insert_what_belongs_to(tx, born)
    tx.journal_many([_birth(one.signed) for one in born], now=now)
    ids: dict[str, str | PolicyRefused] = {one.id: one.id for one in born}
    return ids | {one.id: _same_draft(one, named[_key(one)]) for one in new if one.id not in ids}


def _insert_what_belongs_to(tx: Transaction, born: Sequence[NewDraft]) -> None:
    if born:
        octets = [{"draft_id": one.id, "octets": one.signed.draft.message} for one in born]
        tx.connection.execute(_INSERT_MESSAGE, octets)
    reasons = [(one.id, one.signed.draft.resubmitted) for one in born]
    again = [{"draft_id": draft_id, "reason": reason} for draft_id, reason in reasons if reason is not None]
    if again:
        tx.connection.execute(_INSERT_RESUBMISSION, again)


def _birth(signed: SignedDraft) -> Fact:
    detail = {"to": State.PENDING.value, "agent": signed.draft.agent, "digest": signed.digest.hex()}
    return Fact(Verb.INSERT.value, signed.draft.id, detail=detail_text(detail))


def _what_was_rejected(tx: Transaction, new: Sequence[NewDraft]) -> dict[str, PolicyRefused]:
    """Those whose words to the same people were rejected, and that do not say why they are asked for again."""
    silent = [one for one in new if one.signed.draft.resubmitted is None]
    if not silent:
        return {}
    if len(silent) == 1:  # the usual case, without a list to be written into the statement
        rows = tx.connection.execute(_ONE_REJECTED, {"fingerprint": silent[0].signed.fingerprint})
    else:
        rows = tx.connection.execute(_SOME_REJECTED, {"fingerprints": [one.signed.fingerprint for one in silent]})
    newest = {row.fingerprint: row for row in rows}
    return {
        one.id: _already_rejected(newest[one.signed.fingerprint]) for one in silent if one.signed.fingerprint in newest
    }


def _already_rejected(earlier: Row[Any]) -> PolicyRefused:
    reason = printable(earlier.reason).strip()
    why = f": {reason}" if reason else ", without a reason"
    return PolicyRefused(
        Code.ALREADY_REJECTED,
        f"{earlier.approver} rejected the same as draft {earlier.id}{why}; change it, or say why it should be "
        "asked for again (--resubmit)",
        field="resubmit",
    )


def _same_draft(one: NewDraft, earlier: Row[Any]) -> str | PolicyRefused:
    if earlier.fingerprint != one.signed.fingerprint:
        return PolicyRefused(
            Code.IDEMPOTENCY_CONFLICT,
            f"idempotency key {one.idempotency_key!a} already names draft {earlier.id}, which says something else",
            field="idempotency_key",
        )
    if earlier.state == State.REJECTED and one.signed.draft.resubmitted is not None:
        return PolicyRefused(
            Code.IDEMPOTENCY_CONFLICT,
            f"idempotency key {one.idempotency_key!a} names draft {earlier.id}, which was rejected; use another key",
            field="idempotency_key",
        )
    return str(earlier.id)


def withdraw_if_not_sent(tx: Transaction, draft_id: str, *, agent: str, now: int) -> State:
    """Cancel an agent's own draft; see `stop.cancel_if_not_sent`. Another's is as unknown as none."""
    own = tx.connection.execute(
        select(drafts.c.agent).where(drafts.c.id == draft_id, drafts.c.kind != SYSTEM_KIND)
    ).scalar_one_or_none()
    if own != agent:
        raise DraftUnknown(Code.DRAFT_UNKNOWN, f"agent {agent} has no draft {draft_id}")
    return cancel_if_not_sent(tx, draft_id, now=now)
