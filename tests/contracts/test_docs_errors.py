"""docs/reference/errors.md explains every code, and exits are what it says."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from outbox.core import errors
from outbox.core.errors import Code, OutboxError
from outbox.ledger import LedgerRefused
from outbox.store.transition import LostRace
from outbox.store.writer import CommitUnknown
from tests.contracts.markdown import ROOT, page, rows, sections

PAGE = page("docs/reference/errors.md")
DOCUMENTED = re.findall(r"^- `(\w+)` \(([^)]+)\)\.", PAGE, re.MULTILINE)
CLASSES = {
    name: found
    for name, found in (vars(errors) | {one.__name__: one for one in (LostRace, CommitUnknown, LedgerRefused)}).items()
    if isinstance(found, type) and issubclass(found, OutboxError)
}


def uses() -> dict[Code, set[str]]:
    """Each code with the names of what it is handed to as the first argument; "" where it is only mentioned."""
    found: dict[Code, set[str]] = defaultdict(set)
    for file in (ROOT / "outbox").rglob("*.py"):
        tree = ast.parse(file.read_text())
        handed = {
            id(call.args[0]): call.func.id
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and call.args and isinstance(call.func, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code":
                found[Code[node.attr]].add(handed.get(id(node), ""))
    return found


def test_every_code_is_documented_once_and_no_other_is() -> None:
    assert sorted(code for code, _ in DOCUMENTED) == sorted(Code)


def test_every_code_is_used() -> None:
    assert set(Code) - set(uses()) == set()


def test_the_exit_codes_of_each_code_are_those_of_the_errors_it_is_raised_with() -> None:
    used = uses()
    for code, where in DOCUMENTED:
        raised_with = used.get(Code(code), set())
        exits = {CLASSES[name].exit_code for name in raised_with if name in CLASSES}
        exits |= {1 for name in raised_with if name == "Violation"}  # raise_first makes PolicyRefused of them
        assert {int(number) for number in re.findall(r"[0-9]+", where)} == exits, code


def test_the_table_of_exit_codes_has_every_class() -> None:
    documented = {
        name: int(number)
        for number, names, _ in rows(sections(PAGE)["Exit codes"])
        for name in re.findall(r"`(\w+)`", names)
    }
    own = {name: found.exit_code for name, found in CLASSES.items() if found.__module__ == errors.__name__}
    del own["OutboxError"]
    assert documented == own


def test_the_tree_in_the_docstring_has_every_class_with_its_exit_code() -> None:
    drawn = {name: int(number) for name, number in re.findall(r"── (\w+) +([0-9]+)  ", str(errors.__doc__))}
    own = {name: found.exit_code for name, found in CLASSES.items() if found.__module__ == errors.__name__}
    del own["OutboxError"]
    assert drawn == own


def test_every_class_says_who_can_mend_it() -> None:
    for found in CLASSES.values():
        assert found.__doc__, found
