"""docs/reference/commands.md describes every command and flag, and no other; JSON is as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from outbox.cli.main import outbox
from tests.cli import zygote
from tests.contracts.markdown import code, fences, page, rows, sections
from tests.house import JANE, House

PAGE = page("docs/reference/commands.md")
SECTIONS = {name: text for name, text in sections(PAGE).items() if name.startswith("outbox ")}


def commands(command: click.Command, path: tuple[str, ...] = ("outbox",)) -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it."""
    if len(path) > 1:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


COMMANDS = dict(commands(outbox))
# CONTRACT, "First", with the flags that it names.
FIRST = {
    "init": {"--dir", "--from-domain", "--approver", "--relay-host"},
    "demo": set(),
    "draft": {
        "--from", "--to", "--cc", "--bcc", "--subject", "--text", "--text-file", "--html-file", "--attach",
        "--in-reply-to", "--references", "--kind", "--ttl", "--agent", "--idempotency-key", "--eml", "--json",
    },
    "list": {"--state", "--system", "--limit", "--after", "--json"},
    "show": {"--eml", "--json"},
    "cancel": set(),
    "approve": {"--as"},
    "reject": {"--reason"},
    "inbox": {"--once"},
    "inbox explain": {"--json"},
    "replies": {"--json"},
    "worker": {"--drain"},
    "db upgrade": set(),
    "db current": set(),
}  # fmt: skip
PRINTS_NOTHING_OF_ITS_OWN = {
    "outbox demo", "outbox inbox", "outbox worker", "outbox db", "outbox fence", "outbox journal", "outbox keys",
}  # fmt: skip


def flags(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def documented_flags(text: str) -> set[str]:
    return {flag for cells in rows(text) if (flag := code(cells[0])).startswith("--")}


def test_every_command_has_its_section_and_no_other() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_lists_every_flag_and_no_other(name: str) -> None:
    assert documented_flags(SECTIONS[name]) == flags(COMMANDS[name])


def test_the_flags_of_outbox_itself_are_listed() -> None:
    assert documented_flags(PAGE.partition("\n## ")[0]) == flags(outbox)


@pytest.mark.parametrize("name", FIRST)
def test_what_the_contract_says_comes_first_is_there(name: str) -> None:
    assert FIRST[name] <= flags(COMMANDS[f"outbox {name}"])


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - PRINTS_NOTHING_OF_ITS_OWN))
def test_every_command_that_prints_data_takes_json(name: str) -> None:
    assert "--json" in flags(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_in_a_sentence_what_it_does(name: str) -> None:
    assert re.match(r"[A-Z].*\.", COMMANDS[name].help or "")


def shape(value: object) -> object:
    """The keys of a JSON object, in order, and those of the objects inside it."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shape(value[0])]
    return None


def documented_shape(section: str) -> object:
    (example,) = [fence.text for fence in fences(section) if fence.language == "json"]
    return shape(json.loads(example))


def run(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    line = ["--config", str(house.folder / "outbox.toml"), *words]
    code, out, err = zygote.run(line, Path.cwd(), dict(os.environ), b"")
    return subprocess.CompletedProcess(line, code, out.decode(), err.decode())


@pytest.fixture
def told(house: House) -> tuple[House, str, Path]:
    """A draft that was approved by reply and refused by the relay, and the reply."""
    draft_id = house.draft().id
    reply = house.reply(house.ask(draft_id), "Ship it")
    house.inbox()
    house.relay.refuse[JANE] = "550 5.1.1 no such person"
    house.drain()
    return house, draft_id, reply


def test_json_is_what_the_page_shows(told: tuple[House, str, Path]) -> None:
    house, draft_id, reply = told
    shown = json.loads(run(house, "show", draft_id, "--json").stdout)
    documented = dict(documented_shape(SECTIONS["outbox show"]))  # type: ignore[call-overload]
    assert shown["rejection"] is None
    assert shape(shown) == list({**documented, "rejection": None}.items())
    (listed,) = [json.loads(line) for line in run(house, "list", "--json").stdout.splitlines()]
    assert listed.keys() == shown.keys() - {"requests", "attempts"}
    (said,) = [json.loads(line) for line in run(house, "replies", "--json").stdout.splitlines()]
    assert shape(said) == documented_shape(SECTIONS["outbox replies"])
    explained = json.loads(run(house, "inbox", "explain", str(reply), "--json").stdout)
    assert shape(explained) == documented_shape(SECTIONS["outbox inbox explain"])
    assert [one["check"] for one in explained["checks"]] == [
        "token", "from", "authenticity", "automatic", "replay", "fresh", "verdict",
    ]  # fmt: skip


def test_a_rejection_is_shown_as_the_page_says(house: House) -> None:
    shown = json.loads(run(house, "reject", house.draft().id, "--reason", "too dear", "--json").stdout)
    documented = dict(documented_shape(SECTIONS["outbox show"]))  # type: ignore[call-overload]
    assert shape(shown["rejection"]) == documented["rejection"]


def test_an_error_in_json_is_an_object_on_stderr(house: House) -> None:
    refused = run(house, "approve", "no-such-draft", "--json")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert shape(json.loads(refused.stderr)) == documented_shape(PAGE.partition("\n## ")[0])


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    from outbox.core import errors

    found = {value.exit_code for value in vars(errors).values() if hasattr(value, "exit_code")}
    documented = {int(cells[0]) for cells in rows(PAGE.partition("\n## ")[0]) if cells[0].isdigit()}
    assert documented == found | {0, 130}
