"""What `import outbox` offers, and what it does not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

import outbox
from tests.contracts.sources import PACKAGE


def type_checked_names() -> set[str]:
    """What the root package imports for type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {
        alias.asname or alias.name for line in block.body if isinstance(line, ast.ImportFrom) for alias in line.names
    }


def test_the_public_names_are_what_is_exported() -> None:
    assert set(outbox.__all__) == set(outbox._HOMES) == type_checked_names()


@pytest.mark.parametrize("name", outbox.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(outbox, name)
    assert found.__name__ == name
    assert found.__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'typo'"):
        outbox.typo  # noqa: B018  looking it up is the test


def test_importing_outbox_imports_nothing_heavy() -> None:
    program = (
        "import json, sys, outbox, outbox.cli\n"
        "heavy = ('sqlalchemy', 'alembic', 'pydantic', 'aiosmtplib', 'email_validator')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == []


def test_the_store_s_package_re_exports_nothing() -> None:
    tree = ast.parse((PACKAGE / "store" / "__init__.py").read_text())
    assert [type(node).__name__ for node in tree.body] == ["Expr"]


@pytest.mark.parametrize("room", ["drafter", "inbox", "worker", "operator"])
def test_every_room_has_a_door(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert "open" in imported
