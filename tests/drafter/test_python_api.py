"""`outbox.draft(...)`: the drafter's room for programs in Python, imported when it is first used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import outbox
from outbox.core.errors import Code
from tests.drafter.ledger import read_back, rows_of, stored
from tests.house import JANE, SALES, House


def api(house: House, **given: object) -> object:
    wanted: dict[str, object] = {"sender": SALES, "to": JANE, "subject": "Offer", "text": "Dear Jane"}
    return outbox.draft(**(wanted | given), config_file=house.folder / "outbox.toml")  # type: ignore[arg-type]


def test_a_draft_is_stored_and_returned(house: House) -> None:
    made = api(house, cc=["bob@customer.example"], bcc=("eve@customer.example",), kind="email")
    (draft,) = house.drafts()
    assert made == draft
    assert (draft.agent, draft.state, draft.envelope.to) == ("python", "pending", (JANE,))
    assert (draft.envelope.cc, draft.envelope.bcc) == (("bob@customer.example",), ("eve@customer.example",))


def test_one_recipient_may_be_given_as_a_string(house: House) -> None:
    api(house, to=f"Jane <{JANE}>", cc="bob@customer.example", bcc="eve@customer.example")
    assert len(house.drafts()[0].envelope.recipients) == 3


def test_a_string_of_two_recipients_is_refused(house: House) -> None:
    with pytest.raises(outbox.PolicyRefused) as caught:
        api(house, to="a@x.example, b@x.example")
    assert caught.value.code is Code.ADDRESS_INVALID
    assert rows_of(house) == (0, 0, 0)


def test_attachments_are_paths_or_octets(house: House, tmp_path: Path) -> None:
    (tmp_path / "offer.pdf").write_bytes(b"%PDF")
    api(house, attachments=[str(tmp_path / "offer.pdf"), outbox.Attachment("b.txt", "text/plain", b"b")])
    parts = read_back(stored(house, house.drafts()[0].id)).iter_attachments()
    found = {(part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in parts}
    assert found == {("offer.pdf", "application/pdf", b"%PDF"), ("b.txt", "text/plain", b"b")}


def test_attachments_keep_the_order_they_were_given_in(house: House, tmp_path: Path) -> None:
    (tmp_path / "first.txt").write_bytes(b"1")
    api(house, attachments=[tmp_path / "first.txt", outbox.Attachment("second.txt", "text/plain", b"2")])
    parts = read_back(stored(house, house.drafts()[0].id)).iter_attachments()
    assert [part.get_filename() for part in parts] == ["first.txt", "second.txt"]


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(60, 60), ("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800), ("60", 60)]
)
def test_a_time_to_live_is_seconds_or_a_duration(house: House, ttl: int | str, seconds: int) -> None:
    api(house, ttl=ttl)
    (draft,) = house.drafts()
    assert draft.expires_at - draft.created_at == seconds * 1_000_000


@pytest.mark.parametrize("ttl", ["", "soon", "1w", "-1", "1.5h", "1h30m", 1.5, "9" * 30, 0, "0s", "31d"])
def test_any_other_time_to_live_is_out_of_range(house: House, ttl: object) -> None:
    with pytest.raises(outbox.PolicyRefused) as caught:
        api(house, ttl=ttl)
    assert (caught.value.code, caught.value.field) == (Code.TTL_OUT_OF_RANGE, "ttl")
    assert rows_of(house) == (0, 0, 0)


def test_a_missing_attachment_is_refused(house: House, tmp_path: Path) -> None:
    with pytest.raises(outbox.PolicyRefused) as caught:
        api(house, attachments=[tmp_path / "none"])
    assert caught.value.code is Code.ATTACHMENT_MISSING
    assert rows_of(house) == (0, 0, 0)


def test_missing_settings_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(outbox.ConfigError):
        outbox.draft(sender=SALES, to=JANE, subject="x", text="x", config_file=tmp_path / "none.toml")


def test_every_parameter_is_named_and_typed() -> None:
    parameters = inspect.signature(outbox.draft).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)


def test_every_exported_name_is_there() -> None:
    assert all(getattr(outbox, name) is not None for name in outbox.__all__)
    assert issubclass(outbox.PolicyRefused, outbox.OutboxError)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="typo"):
        outbox.typo  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("sqlalchemy", "alembic", "pydantic", "aiosmtplib")
    program = f"import sys, outbox; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_drafting_never_imports_what_sends(house: House) -> None:
    given = {"sender": SALES, "to": JANE, "subject": "x", "text": "x", "config_file": str(house.folder / "outbox.toml")}
    others = ("outbox.worker", "outbox.transport", "outbox.inbox", "aiosmtplib")
    program = f"import sys, outbox; outbox.draft(**{given}); print([n for n in sys.modules if n.startswith({others})])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
