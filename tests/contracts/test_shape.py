"""Sizes: what fits on a screen is read."""

from __future__ import annotations

import ast
from statistics import mean

from tests.contracts.markdown import ROOT
from tests.contracts.sources import PACKAGE, functions, modules

LONGEST_FUNCTION = 60
LONGEST_MODULE = 400
MEAN_FUNCTION = 20
# Every `except Exception` there is, and why what it catches may not go further.
BROAD = {
    ("store/writer.py", "_tried"): "the waiter's own error: it is raised there, and the others' transitions go on",
    ("worker/lane.py", "_ended"): "one bad row never stops the loop, and is never tried for ever",
    ("inbox/answering.py", "_take"): "one bad message never stops the loop",
    ("inbox/room.py", "_try"): "the loop: what failed once is looked at again",
    ("inbox/asking.py", "_ask_about"): "one bad row never stops the loop, and is never asked about for ever",
}


def sizes() -> dict[str, int]:
    """Lines of every function, decorators left out."""
    return {
        f"{file.relative_to(PACKAGE)}:{function.name}:{function.lineno}": (function.end_lineno or 0)
        - function.lineno
        + 1
        for file, tree in modules().items()
        for function in functions(tree)
    }


def test_no_function_is_longer_than_60_lines() -> None:
    assert {name: lines for name, lines in sizes().items() if lines > LONGEST_FUNCTION} == {}


def test_functions_have_20_lines_on_average_at_most() -> None:
    assert mean(sizes().values()) <= MEAN_FUNCTION


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def is_broad(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    listed = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(one, ast.Name) and one.id in {"Exception", "BaseException"} for one in listed)


def test_the_broad_handlers_are_where_they_are_listed() -> None:
    found = set()
    for file, tree in modules().items():
        for function in functions(tree):
            for node in ast.walk(function):
                suppressing = (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id == "suppress"
                    and any(is_broad(one) for one in node.args)
                )
                if suppressing or (isinstance(node, ast.ExceptHandler) and is_broad(node.type)):
                    found.add((str(file.relative_to(PACKAGE)), function.name))
    assert found == set(BROAD)
    assert len(BROAD) <= 5


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(file.relative_to(PACKAGE)) for file, tree in modules().items() if not ast.get_docstring(tree)]
    assert silent == []


def test_every_room_s_door_has_a_paragraph_on_security() -> None:
    for room in ("drafter", "inbox", "worker", "operator"):
        said = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
        assert "\n\nSECURITY. Holds " in said, room
        assert "A bug here can" in " ".join(said.split()) or "a bug here can" in " ".join(said.split()), room


def test_tests_are_named_as_facts() -> None:
    """A sentence has three words at least."""
    for file, tree in modules(ROOT / "tests").items():
        for function in functions(tree):
            if function.name.startswith("test_"):
                assert function.name.count("_") >= 3, f"{file.relative_to(ROOT)}: {function.name}"
