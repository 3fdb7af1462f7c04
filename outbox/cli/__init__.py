"""The command line: parse, open one room, call it, render. No decision is made here."""

from outbox.cli.main import main

__all__ = ["main"]
