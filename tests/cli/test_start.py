"""What a command imports and keeps as it starts: a short one is mostly that."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from pydantic import BaseModel

from outbox.config import Settings
from tests.cli.shell import Shell

SECTIONS = [name for name, field in Settings.model_fields.items() if isinstance(field.default, BaseModel)]
COLLECTOR = """
import gc, json, sys
from outbox.cli import main
sys.argv = ["outbox", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps([gc.isenabled(), gc.get_freeze_count() > 0]))
"""


def program(shell: Shell, code: str, *words: str) -> object:
    """The JSON that a program of its own prints last, in the shell's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "CREDENTIALS_"))}
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=shell.folder, env=kept, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", [("list",), ("worker", "--drain")])
def test_garbage_is_looked_for_once_a_command_has_started(shell: Shell, words: tuple[str, ...]) -> None:
    assert program(shell, COLLECTOR, *words) == [True, True]


def test_settings_are_read_without_what_reads_mail_or_the_database(shell: Shell) -> None:
    code = (
        "import json, sys\nfrom outbox.config import load\nload()\n"
        "heavy = ('outbox.core.policy', 'outbox.core.message', 'outbox.core.rendering', 'sqlalchemy', 'aiosmtplib')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    assert program(shell, code) == []


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_nobody_wrote_is_one_that_would_be_accepted(name: str) -> None:
    default = Settings.model_fields[name].default
    assert default.model_fields_set == set()
    assert type(default).model_validate(default.model_dump()) == default
