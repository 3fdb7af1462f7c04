"""make's targets are what the pages and CI say."""

from __future__ import annotations

import os
import re
import subprocess

from tests.contracts.markdown import ROOT, page, pages

MAKEFILE = page("Makefile")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def make(*words: str) -> str:
    """What make would do, or say."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ran = subprocess.run(["make", *words], cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_target_that_a_page_names_is_there() -> None:
    named = {
        target
        for file in pages()
        for target in re.findall(r"(?:^ {4,}|`|\$ )make ([a-z]+)\b", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"demo", "test", "lint", "constraints"} <= named <= TARGETS


def test_make_alone_lists_every_target_with_a_word_on_it() -> None:
    listed = set(re.findall(r"^make ([a-z]+) +\S", make("--silent"), re.MULTILINE))
    assert listed == TARGETS - {"help", "clean"}


def test_every_target_is_phony() -> None:
    phony = {name for line in re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.MULTILINE) for name in line.split()}
    assert TARGETS - phony <= {"help"}


def test_test_runs_after_the_servers_were_looked_for() -> None:
    plan = make("--dry-run", "--silent", "test")
    assert plan.index(".ci/servers") < plan.index("pytest")


def test_ci_runs_lint_and_test_on_a_bare_clone() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^make (\w+)$", script.read_text(), re.MULTILINE) == ["lint", "test"]


def test_an_old_python_is_named_in_one_line_with_its_remedy() -> None:
    for remedy in ("PYTHON=python3", "apt-get install python3", "apt-get install python3-venv"):
        assert remedy in MAKEFILE
