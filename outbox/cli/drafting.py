"""The flags of `outbox draft` as what the drafter takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from outbox.core.errors import Code, UsageError
from outbox.drafter.api import parse_ttl
from outbox.drafter.intake import Overrides, Wanted
from outbox.drafter.room import read_attachments

_PARTS = ("subject", "text", "text_file", "html_file", "attach", "in_reply_to", "references")


def wanted(asked: Mapping[str, Any], read_text: Callable[[str], str]) -> Wanted:
    """A mail in parts. Raises UsageError where flags are missing or contradict each other."""
    if asked["sender"] is None:
        raise UsageError(Code.USAGE, "--from is needed, or a whole message with --eml", field="--from")
    if asked["text"] is not None and asked["text_file"] is not None:
        raise UsageError(Code.USAGE, "--text and --text-file say the same thing twice", field="--text")
    if asked["text_file"] == "-" and asked["html_file"] == "-":
        raise UsageError(Code.USAGE, "standard input can be read once", field="--html-file")
    text = asked["text"] if asked["text_file"] is None else read_text(asked["text_file"])
    files: tuple[Path, ...] = asked["attach"]
    return Wanted(
        sender=asked["sender"],
        to=asked["to"],
        cc=asked["cc"],
        bcc=asked["bcc"],
        subject=asked["subject"] or "",
        text=text,
        html=read_text(asked["html_file"]) if asked["html_file"] is not None else None,
        attachments=read_attachments(files),
        in_reply_to=asked["in_reply_to"],
        references=asked["references"],
        kind=asked["kind"],
        agent=asked["agent"],
        ttl=parse_ttl(asked["ttl"]),
        resubmit=asked["resubmit"],
    )


def only_one(**sources: object) -> str | None:
    """The flag that names whole messages, if one was given. Raises UsageError where two were."""
    given = [f"--{name.replace('_', '-')}" for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise UsageError(Code.USAGE, f"{given[0]} and {given[1]} contradict each other", field=given[1])
    return given[0] if given else None


def overrides(asked: Mapping[str, Any], beside: str = "--eml") -> Overrides:
    """What is said beside whole messages. Raises UsageError for a flag that a message itself answers."""
    for name in _PARTS:
        if asked[name] not in {None, ()}:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(Code.USAGE, f"{flag} and {beside} contradict each other", field=flag)
    return Overrides(
        sender=asked["sender"],
        to=asked["to"] or None,
        cc=asked["cc"] or None,
        bcc=asked["bcc"] or None,
        kind=asked["kind"],
        agent=asked["agent"],
        ttl=parse_ttl(asked["ttl"]),
        resubmit=asked["resubmit"],
    )
