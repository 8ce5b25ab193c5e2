"""Ends the handler of a client that has disconnected."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

logger = logging.getLogger("dws")


class HandlerGuard:
    """Lets the current task run for a grace period after its client has disconnected, then cancels it.

    Without it, a handler that waits for something other than its client would block server shutdown.

    Args:
        conn_id: Id of the connection, for the log.
        grace_s: Time between the end of the connection and the cancellation, in seconds.

    Attributes:
        cancelled: Whether the guard has cancelled the handler.
    """

    __slots__ = ("_conn_id", "_grace_s", "_task", "_timer", "cancelled")

    def __init__(self, conn_id: str, grace_s: float) -> None:
        self._conn_id = conn_id
        self._grace_s: float = grace_s
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.cancelled: bool = False

    def start_grace(self) -> None:
        """Start the grace period. Further calls do nothing."""
        if self._task is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._grace_s, self._cancel)

    def release(self) -> None:
        """Stop guarding, because the handler has ended by itself."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()

    def swallow(self) -> bool:
        """Return whether the CancelledError at the end of the handler came from this guard and from nobody else."""
        task = asyncio.current_task()
        return self.cancelled and task is not None and task.uncancel() == 0

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self.cancelled = True
            logger.info(
                "connection %r: the handler is cancelled, because it still runs %g s after its client has disconnected",
                self._conn_id,
                self._grace_s,
            )
            self._task.cancel("the client has disconnected")
