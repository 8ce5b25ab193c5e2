"""What a client sent and no handler has taken yet: bounded, in order, ended once."""

from __future__ import annotations

import asyncio

from dws_core._wire.message import JSON


class InboxEnded(Exception):
    """The client is gone and nothing is left to take."""


class Inbox:
    """A bounded queue between the reader and one handler.

    Args:
        limit: Messages that may wait.
    """

    __slots__ = ("_arrived", "_freed", "_limit", "_queue", "ended")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: list[JSON] = []  # short, and an empty list is a tenth of an empty deque
        self._arrived: asyncio.Future[None] | None = None
        self._freed: asyncio.Future[None] | None = None
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether the next message has to wait."""
        return len(self._queue) >= self._limit

    def put(self, message: JSON) -> None:
        """Queue a message; the caller has waited for `room`."""
        self._queue.append(message)
        _wake(self._arrived)

    def end(self) -> None:
        """Say that nothing more will come."""
        self.ended = True
        _wake(self._arrived)

    async def room(self, timeout_s: float) -> bool:
        """Wait until a message can be queued; False: not within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.full:
                    self._freed = asyncio.get_running_loop().create_future()
                    await self._freed
        except TimeoutError:
            return False
        return True

    async def get(self) -> JSON:
        """Take the next message; cancelling the wait loses nothing.

        Raises:
            InboxEnded: Nothing is left and nothing will come.
        """
        while not self._queue:
            if self.ended:
                raise InboxEnded
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        message = self._queue.pop(0)
        _wake(self._freed)
        return message


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
