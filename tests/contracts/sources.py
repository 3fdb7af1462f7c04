"""Our own files: which there are, and the names that they define."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.contracts.markdown import ROOT

PACKAGE = ROOT / "outbox"


def ours() -> list[Path]:
    """Every file that is tracked or could be added; without git, what lies in our folders."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        found = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    else:
        top = ("outbox", "tests", "docs", "migrations", "benchmarks", ".ci")
        found = [*ROOT.glob("*.*"), *(file for name in top for file in (ROOT / name).rglob("*"))]
    return sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)


@cache
def modules(folder: Path = PACKAGE) -> dict[Path, ast.Module]:
    """Every Python file below a folder, parsed."""
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.py"))}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, inner ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def names(tree: ast.Module) -> Iterator[str]:
    """Every name that a module defines: classes, functions, parameters, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def words(name: str) -> str:
    """`DraftView` and `_draft_view` as `_draft_view_`, for looking a word up in it."""
    return f"_{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).strip('_').lower()}_"
