"""Logs on stderr: a sentence on a terminal, one JSON object a line elsewhere. Each has an `action` to search for."""

from __future__ import annotations

import json
import logging
import sys
import time
from functools import lru_cache

_OWN = ("action", "code", "draft", "uid")


_encode = json.JSONEncoder(ensure_ascii=False).encode


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": f"{_second(int(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _OWN if getattr(record, name, None) is not None}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _encode(fields)


@lru_cache(maxsize=1)
def _second(unix: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix))


def configure(level: int) -> None:
    """Send this package's logs to stderr. Who called is not asked for: nothing shows it, and it costs."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonLines())
    logger = logging.getLogger("outbox")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
