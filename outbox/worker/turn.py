"""What lanes ask of the writer in one turn of the event loop goes to it together, and comes back together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from outbox.store.writer import Waiting, Work, Writer


class Turn:
    """Collects what is asked. `before_submit` is called when it is about to go, and may ask for more to go with it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._asked: list[Waiting] = []
        self.before_submit: Callable[[], None] | None = None

    def ask(
        self,
        work: Work,
        item: object,
        *,
        first: object | None = None,
        then: object | None = None,
        is_last: bool = False,
    ) -> asyncio.Future[Any]:
        """What `work` returns for `item`, or its own error, after COMMIT; `first` and `then` are the writer's."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._submit, loop)
        self._asked.append(Waiting(work, item, future, first, then, is_last))
        return future

    def _submit(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self.before_submit is not None:
                self.before_submit()
        finally:  # whatever that came to, the next turn has a submission of its own
            asked, self._asked = self._asked, []
            self._writer.submit_all(asked, partial(_wake, loop))


def _wake(loop: asyncio.AbstractEventLoop, done: Sequence[Waiting]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and whoever waited with it
        loop.call_soon_threadsafe(_deliver, done)


def _deliver(asked: Sequence[Waiting]) -> None:
    for one in asked:
        future = one.waiter
        if not isinstance(future, asyncio.Future) or future.done():
            continue
        if one.error is None:
            future.set_result(one.result)
        else:
            future.set_exception(one.error)
