"""Reporting gaps to the application."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from dws_core._tasks import Tasks
from dws_core.client._events import Gap

logger = logging.getLogger("dws.client")

OnGap: TypeAlias = Callable[[Gap], Awaitable[None] | None]
"""Called with a gap. Sync or async."""


class Announcer:
    """Calls the application's function for each gap. An async function does not block the client's reader.

    Args:
        on_gap: The function to call. If None, gaps are logged.
        tasks: Background tasks, in which async functions run.
    """

    def __init__(self, on_gap: OnGap | None, tasks: Tasks) -> None:
        self._on_gap = on_gap
        self._tasks = tasks

    def announce(self, gap: Gap) -> None:
        """Report a gap. Exceptions of the application's function are logged."""
        if self._on_gap is None:
            logger.warning("messages of %s may have been lost: %s", ", ".join(gap.filters), gap.reason)
            return
        try:
            result = self._on_gap(gap)
        except Exception:
            logger.exception("on_gap raised an exception")
            return
        if inspect.isawaitable(result):
            self._tasks.spawn(_finish(result), name="on_gap of a dws client")


async def _finish(result: Awaitable[None]) -> None:
    try:
        await result
    except Exception:
        logger.exception("on_gap raised an exception")
