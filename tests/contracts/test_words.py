"""One word for each thing, and none of those that hide what a thing is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from outbox.store.schema import metadata
from tests.contracts.markdown import ROOT, fences, page, pages
from tests.contracts.sources import functions, modules, names, ours, words

EMPTY_NAMES = ("utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "types")
EMPTY_VERBS = ("handle_", "process_", "do_", "manage_", "ensure_")
CALLED_BY_A_LIBRARY = {
    "handle_starttag", "handle_endtag", "handle_data",  # html.parser
    "handle_EHLO", "handle_HELO", "handle_MAIL", "handle_RCPT", "handle_DATA", "handle_QUIT",  # aiosmtpd
}  # fmt: skip
# Words of the glossary's "Not" that are right elsewhere: for everything, or in these names for this reason.
ORDINARY = {
    "headers": "a message has them; it is the envelope that is not called so",
    "run": "a verb too",
    "delivered": "the glossary's own quotation",
}
ELSEWHERE = {
    "queue": {"queue_id": "the relay's name for its own", "_QUEUE_ID": "the same", "_queue_id": "the same"},
    "lock": {
        "lock": "the file that a living worker holds (DESIGN section 4)",
        "_lock": "the same",
        "WorkerLock": "the same",
    },
    "job": {
        "main_job": "the title of the demonstration's first act",
    },
    "task": {"task": "asyncio's"},
    "result": {"Result": "of a callable, a type variable", "result": "of a callable"},
    "step": {
        "Step": "of an SMTP transaction; an attempt has phases",
        "step": "the same, and of a one-time code (RFC 6238)",
        "STEP": "of a one-time code",
    },
    "item": {"item": "what IMAP's FETCH asks for (RFC 3501), and of a list in a DKIM tag"},
    "response": {"response": "of the demonstration's DNS server"},
    "payload": {"payload": "octets under a MAC; the email package's name for a part's inside"},
    "content": {
        "Content": "what a message is composed from, before there are octets",
        "content": "the same",
        "_content": "the same",
        "_content_fields": "the same",
        "_content_violations": "policy about it",
    },
}
BANNED = {
    word.strip()
    for words_said in re.findall(r"Not: ([^.]+)\.", " ".join(page("docs/glossary.md").split()))
    for word in words_said.split(",")
}


@cache
def defined() -> frozenset[str]:
    """Every name of the package, and of its modules."""
    named = {name for tree in modules().values() for name in names(tree)}
    return frozenset(named | {file.stem for file in modules()})


@pytest.mark.parametrize("folder", ["outbox", "tests", "migrations"])
def test_no_file_or_folder_has_an_empty_name(folder: str) -> None:
    found = [
        file.relative_to(ROOT)
        for file in modules(ROOT / folder)
        if {part.removesuffix(".py") for part in file.relative_to(ROOT).parts} & set(EMPTY_NAMES)
    ]
    assert found == []


def test_no_class_or_function_has_an_empty_name() -> None:
    found = {
        node.name
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and any(f"_{empty}_" in words(node.name) for empty in EMPTY_NAMES)
    }
    assert found == set()


@pytest.mark.parametrize("folder", ["outbox", "tests"])
def test_no_function_begins_with_an_empty_verb(folder: str) -> None:
    found = {
        function.name
        for tree in modules(ROOT / folder).values()
        for function in functions(tree)
        if function.name.lstrip("_").startswith(EMPTY_VERBS)
    }
    assert found - CALLED_BY_A_LIBRARY == set()


def test_the_glossary_bans_words() -> None:
    assert {"job", "payload", "hash", "permission", "rate limiter", "audit log"} <= BANNED


@pytest.mark.parametrize("word", sorted(BANNED - ORDINARY.keys()))
def test_what_the_glossary_does_not_say_is_no_name(word: str) -> None:
    columns = {column.name for table in metadata.tables.values() for column in table.columns} | set(metadata.tables)
    found = {name for name in defined() | columns if f"_{word.replace(' ', '_')}_" in words(name)}
    assert found - ELSEWHERE.get(word, {}).keys() == set()


def test_every_exception_is_still_needed() -> None:
    assert {name for excepted in ELSEWHERE.values() for name in excepted} <= defined()


PATTERNS = {
    "something left undone": r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b",
    "a package index": r"https?://[^\s\"'`)]*(py" + r"pi\.|/simp" + r"le\b|artif" + r"actory|nex" + r"us|dev" + r"pi)",
    "an option for one": r"--(extra-)?index" + r"-url|--find" + r"-links [^\s-]|trusted" + r"-host",
    "a path of one machine": r"(?<![\w.])/(work|home|root|Users)" + r"/\w|/t" + r"mp/v\b",
}


def text_of(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("what", PATTERNS)
def test_no_file_of_ours_has(what: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()[:100]}"
        for file in ours()
        for line in text_of(file).splitlines()
        if re.search(PATTERNS[what], line)
    ]
    assert found == []


def test_constraints_pin_versions_and_name_no_address() -> None:
    lines = [line for line in page("constraints.txt").splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;]+( ; .+)?", line), line


def test_pages_keep_to_120_columns_outside_fences() -> None:
    found = []
    for file in [*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"]:
        text = file.read_text(encoding="utf-8")
        for fence in fences(text):
            text = text.replace(fence.text, "")
        found += [f"{file.relative_to(ROOT)}: {line[:60]}" for line in text.splitlines() if len(line) > 120]
    assert found == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for file in pages():
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", file.read_text(encoding="utf-8")
        ):
            there = (file.parent / target).resolve() if target else file
            if not there.exists():
                broken.append(f"{file.relative_to(ROOT)}: {target}")
            elif anchor:
                headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                if anchor not in slugs:
                    broken.append(f"{file.relative_to(ROOT)}: {target}#{anchor}")
    assert broken == []


def test_every_page_is_reached_from_the_index() -> None:
    index = page("docs/README.md")
    docs = ROOT / "docs"
    missing = [str(file.relative_to(docs)) for file in docs.rglob("*.md") if f"({file.relative_to(docs)})" not in index]
    assert missing == ["README.md"]


def test_each_decision_is_numbered_in_order_and_has_its_three_parts() -> None:
    files = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(file.name[:4])}. "), file
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], file
        assert len(text.splitlines()) <= 60, file
