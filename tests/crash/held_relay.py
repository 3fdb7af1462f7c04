"""A relay on loopback that says when it is at a moment of a transaction, and stays there until it is let go."""

from __future__ import annotations

import socketserver
import threading
from types import TracebackType
from typing import Self

BOUND = 30.0  # seconds that any wait may take before the test fails
LAST_LINE = "This is the last line."
MOMENTS = ("greeting", "MAIL", "RCPT", "DATA", "body", "dot", "accepted")


class Moment:
    """One place in the transaction. It is held from `hold` to `let_go`."""

    def __init__(self) -> None:
        self._reached, self._go_on = threading.Event(), threading.Event()
        self._go_on.set()

    def hold(self) -> None:
        self._go_on.clear()

    def let_go(self) -> None:
        self._go_on.set()

    def wait(self) -> None:
        """Until the relay is here."""
        assert self._reached.wait(BOUND), "the relay was never there"

    def pass_by(self) -> None:
        """The relay's side of it."""
        self._reached.set()
        self._go_on.wait(BOUND)


class HeldRelay:
    """Accepts everything. `dots` are the recipients of each message whose final dot came, answered or not."""

    def __init__(self) -> None:
        self.moments = {name: Moment() for name in MOMENTS}
        self.transactions: list[str] = []
        self.dots: list[tuple[str, ...]] = []

    def __enter__(self) -> Self:
        relay = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    relay.converse(self)
                except OSError:  # the worker was killed
                    return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()
        self._server.shutdown()
        self._thread.join(BOUND)
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def let_go(self) -> None:
        """Hold nothing any more."""
        for moment in self.moments.values():
            moment.let_go()

    def dots_for(self, address: str) -> int:
        """How many messages for `address` came with their final dot: each may have been delivered."""
        return sum(address in recipients for recipients in self.dots)

    def converse(self, session: socketserver.StreamRequestHandler) -> None:
        """One connection, from the greeting to its end."""

        def say(line: str) -> None:
            session.wfile.write(f"{line}\r\n".encode())

        recipients: list[str] = []
        self.moments["greeting"].pass_by()
        say("220 relay.example ESMTP")
        while line := session.rfile.readline():
            words = line.decode().strip()
            verb = words.split(" ", 1)[0].upper()
            if verb in self.moments:
                self.moments[verb].pass_by()
            if verb == "MAIL":
                self.transactions.append(words)
                recipients = []
            if verb == "RCPT":
                recipients.append(words.split("<", 1)[1].split(">", 1)[0])
            if verb == "DATA":
                say("354 go ahead")
                if not self._read_message(session, tuple(recipients)):
                    return
                say("250 2.0.0 Ok: queued as HELD")
                self.moments["accepted"].pass_by()
            elif verb == "QUIT":
                say("221 2.0.0 bye")
                return
            else:
                say("250 2.0.0 Ok")

    def _read_message(self, session: socketserver.StreamRequestHandler, recipients: tuple[str, ...]) -> bool:
        while line := session.rfile.readline():
            if line.decode().strip() == LAST_LINE:
                self.moments["body"].pass_by()
            if line == b".\r\n":
                self.dots.append(recipients)
                self.moments["dot"].pass_by()
                return True
        return False
