"""Telling the application of gaps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from dws_core._tasks import Tasks
from dws_core.client._state import Gap

logger = logging.getLogger("dws.client")

OnGap: TypeAlias = Callable[[Gap], Awaitable[None] | None]
"""Takes a gap; plain or async."""


class Announcer:
    """Calls the application's function. What that awaits does not hold up the client's reader, which it may need.

    Args:
        on_gap: The function; None: gaps are logged.
        tasks: Where an async one runs.
    """

    def __init__(self, on_gap: OnGap | None, tasks: Tasks) -> None:
        self._on_gap = on_gap
        self._tasks = tasks

    def announce(self, gap: Gap) -> None:
        """Tell of a gap; what goes wrong with that is logged."""
        if self._on_gap is None:
            logger.warning("messages of %s may have been lost: %s", ", ".join(gap.filters), gap.reason)
            return
        try:
            told = self._on_gap(gap)
        except Exception:
            logger.exception("on_gap failed")
            return
        if inspect.isawaitable(told):
            self._tasks.spawn(_finish(told), name="on_gap of a dws client")


async def _finish(told: Awaitable[None]) -> None:
    try:
        await told
    except Exception:
        logger.exception("on_gap failed")
