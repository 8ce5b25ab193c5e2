"""What a client sent and no handler has taken yet: bounded, in order, ended once."""

from __future__ import annotations

import asyncio
from collections import deque

from dws_core._wire.message import JSON


class InboxEnded(Exception):
    """The client is gone and nothing is left to take."""


class Inbox:
    """A bounded queue between the reader and one handler.

    Args:
        limit: Messages that may wait.
    """

    __slots__ = ("_changed", "_limit", "_queue", "ended")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: deque[JSON] = deque()
        self._changed: asyncio.Future[None] | None = None
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether the next message has to wait."""
        return len(self._queue) >= self._limit

    def put(self, message: JSON) -> None:
        """Queue a message; the caller has waited for `room`."""
        self._queue.append(message)
        self._wake()

    def end(self) -> None:
        """Say that nothing more will come."""
        self.ended = True
        self._wake()

    async def room(self, timeout_s: float) -> bool:
        """Wait until a message can be queued; False: not within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.full:
                    await self._wait()
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
            await self._wait()
        message = self._queue.popleft()
        if len(self._queue) == self._limit - 1:
            self._wake()
        return message

    async def _wait(self) -> None:
        # Reader and handler never wait at the same time: one waits for room, the other for a message.
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
