"""The import contracts of pyproject.toml hold, and each of them would catch what it is there for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contracts.markdown import ROOT

CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]
LAYERS = "Imports run one way"


@dataclass(frozen=True)
class Planted:
    """An import that must not be, where it is planted, and what else it breaks."""

    module: str
    line: str
    breaks_too: tuple[str, ...] = ()


PLANTED = {
    LAYERS: Planted("core/draft.py", "import outbox.config"),
    "Only the worker reaches the transport": Planted("inbox/asking.py", "from outbox.transport.smtp import Relay"),
    "Only the store speaks SQL": Planted("worker/lane.py", "import sqlalchemy"),
    "Only the transport speaks SMTP": Planted("worker/lane.py", "import aiosmtplib"),
    "Only core/signing makes and checks signatures": Planted("core/grant.py", "from itsdangerous import Signer"),
    "Only the drafter inserts drafts, and the operator what is drafted again": Planted(
        "inbox/room.py", "from outbox.store.drafts import insert_pending"
    ),
    "Only the inbox and the operator give verdicts": Planted(
        "worker/lane.py", "from outbox.store.verdicts import approve_if_pending"
    ),
    "Only the worker claims": Planted("operator/desk.py", "from outbox.store.claims import complete_if_held"),
    "Only the operator changes keys": Planted("worker/room.py", "from outbox.store.key_use import use_of"),
    "Only the operator settles": Planted("worker/room.py", "from outbox.store.settlements import held"),
    "Only the operator prunes": Planted("worker/room.py", "from outbox.store.retention import prunable"),
    "Only the inbox and the worker expire": Planted("drafter/room.py", "from outbox.store.expiry import overdue"),
    "Drafters insert no system drafts": Planted("drafter/room.py", "from outbox.store.notices import insert_system"),
    "Only the mailbox speaks IMAP": Planted("inbox/room.py", "import imapclient"),
    "Only the inbox and the operator look into mailboxes": Planted("worker/lane.py", "import outbox.imap.session"),
    "Only the inbox verifies DKIM": Planted("worker/lane.py", "import dkim"),
    "Only the inbox tells approvers": Planted("worker/lane.py", "from outbox.store.tellings import due_endings"),
    # Siblings in a layer are independent too, so one cannot be broken without the other.
    "Rooms reach each other through the database alone": Planted(
        "drafter/room.py", "from outbox.operator import Desk", (LAYERS,)
    ),
}
ALSO_PLANTED = [
    (LAYERS, Planted("store/views.py", "import outbox.transport", ("Only the worker reaches the transport",))),
    (LAYERS, Planted("transport/smtp.py", "import outbox.store.rows")),
    (LAYERS, Planted("helpful.py", "")),  # a module at the top that no layer names
    ("Only the store speaks SQL", Planted("operator/setup.py", "import alembic")),
]


def broken(package: Path) -> set[str]:
    """The contracts that are broken in a copy of the package, by the linter's own words."""
    ran = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.findall(r"^(.+) (KEPT|BROKEN)$", ran.stdout, re.MULTILINE)
    assert [name for name, _ in said] == CONTRACTS, ran.stdout + ran.stderr
    found = {name for name, verdict in said if verdict == "BROKEN"}
    assert (ran.returncode != 0) == bool(found)
    return found


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to plant things in."""
    return Path(shutil.copytree(ROOT / "outbox", tmp_path / "outbox", ignore=shutil.ignore_patterns("__pycache__")))


def plant(package: Path, planted: Planted) -> None:
    file = package / planted.module
    before = file.read_text() if file.exists() else '"""Planted."""\n\nfrom __future__ import annotations\n'
    assert "from __future__ import annotations\n" in before
    file.write_text(
        before.replace(
            "from __future__ import annotations\n", f"from __future__ import annotations\n\n{planted.line}\n", 1
        )
    )


def test_the_package_keeps_every_contract(package: Path) -> None:
    assert broken(package) == set()


def test_every_contract_has_a_planted_violation() -> None:
    assert set(PLANTED) == set(CONTRACTS)


@pytest.mark.parametrize(
    ("contract", "planted"),
    [
        pytest.param(*one, marks=[] if number % 3 == 0 else pytest.mark.torture)
        for number, one in enumerate([*PLANTED.items(), *ALSO_PLANTED])
    ],
    ids=lambda value: value.line or value.module if isinstance(value, Planted) else value.replace(" ", "-"),
)
def test_a_planted_violation_breaks_its_contract_and_no_other(package: Path, contract: str, planted: Planted) -> None:
    plant(package, planted)
    assert broken(package) == {contract, *planted.breaks_too}


def test_the_store_s_write_modules_are_each_behind_a_contract() -> None:
    """Verbs that move drafts are reached through a module that names its rooms."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    behind = {
        module
        for contract in config["contracts"]
        if contract["type"] == "protected"
        for module in contract["protected_modules"]
    }
    moving = {
        f"outbox.store.{file.stem}"
        for file in (ROOT / "outbox" / "store").glob("*.py")
        if re.search(r"^from outbox\.store\.transition import ", file.read_text(), re.MULTILINE)
    }
    # stop.py is what drafter, inbox and operator share: cancel. The room is looked at in store/transition.py.
    assert moving - behind == {"outbox.store.stop"}
