"""Timeouts of tests, which limit the time since the last progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

HANG_S = 60.0
"""Number of seconds without progress after which a wait fails. Only a failing test waits this long."""


@asynccontextmanager
async def progress_timeout(seconds: float = HANG_S) -> AsyncIterator[Callable[[], None]]:
    """Limit the time since the last progress, not the length of the block.

    Yields:
        A function that restarts the time limit. Call it after each progress.

    Raises:
        TimeoutError: There was no progress for `seconds`.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds) as limit:

        def progress() -> None:
            if not limit.expired():
                limit.reschedule(loop.time() + seconds)

        yield progress
