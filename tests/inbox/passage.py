"""A way through loopback to an IMAP server that writes down what is said, and breaks off where a test wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

PATIENCE = 20.0  # seconds


class Passage:
    """What clients say goes to `port`, and the answers back.

    `cut_after` counts lines of the server: with `each`, every connection ends after so many; else one, once, as the
    lines of all connections have come to that number. Odd numbers let the last line through, even ones half of it.
    """

    def __init__(self, port: int, *, cut_after: int | None = None, each: bool = False) -> None:
        self._target, self.cut_after, self.each = port, cut_after, each
        self.said: list[bytes] = []  # by clients, whole lines
        self.answers = 0  # lines of the server
        self.cuts = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def commands(self) -> list[str]:
        """What clients said, without tags and without the login."""
        lines = [line.decode("ascii", "replace").strip() for line in self.said]
        commands = [line.partition(" ")[2] or line for line in lines]
        return [line for line in commands if line.split(" ")[0].isupper() and not line.startswith("AUTHENTICATE")]

    def cut(self) -> None:
        """End every connection that there is."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _end(one)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
            except OSError:
                _end(client)
                continue
            for one in (client, server):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((client, server))
            self._start(self._carry_commands, client, server)
            self._start(self._carry_answers, server, client)

    def _carry_commands(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client.makefile("rb") as lines:
            for line in lines:
                self.said.append(line)
                server.sendall(line)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _carry_answers(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with suppress(OSError), server.makefile("rb") as lines:
            for line in lines:
                passed += 1
                self.answers += 1
                if self._ends_here(passed):
                    self.cuts += 1
                    client.sendall(line if passed % 2 else line[: len(line) // 2])
                    _end(server)
                    _end(client)
                    return
                client.sendall(line)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _ends_here(self, passed: int) -> bool:
        if self.cut_after is None:
            return False
        return passed >= self.cut_after if self.each else self.answers == self.cut_after


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
