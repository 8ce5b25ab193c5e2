"""The end of a handler whose client is gone."""

from __future__ import annotations

import asyncio
from typing import Any


class HandlerGuard:
    """Lets a handler go on for a while after its client is gone, then cancels it.

    Without it a handler that waits for something else than its client would keep the server from stopping.

    Args:
        grace_s: Seconds between the end of the connection and the cancellation.
    """

    __slots__ = ("_grace_s", "_task", "_timer", "cancelled")

    def __init__(self, grace_s: float) -> None:
        self._grace_s: float = grace_s
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.cancelled: bool = False

    def client_gone(self) -> None:
        """Start the grace time."""
        if self._task is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._grace_s, self._cancel)

    def release(self) -> None:
        """Say that the handler has ended by itself."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()

    def swallow(self) -> bool:
        """Whether a CancelledError that reached the end of the handler was this guard's, and only this guard's."""
        task = asyncio.current_task()
        return self.cancelled and task is not None and task.uncancel() == 0

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self.cancelled = True
            self._task.cancel("the client is gone")
