"""Logs on stderr: a sentence on a terminal, one JSON object a line elsewhere. Each has an `action` to search for."""

from __future__ import annotations

import json
import logging
import sys
import time

_OWN = ("action", "code", "draft", "uid")


class _JsonLines(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _OWN if getattr(record, name, None) is not None}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure(level: int) -> None:
    """Send this package's logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonLines())
    logger = logging.getLogger("outbox")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
