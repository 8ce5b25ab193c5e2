"""How long tests wait: as long as something happens, and then a little longer than a busy machine needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

HANG_S = 60.0
"""Seconds without any progress after which a wait is a failure. Only a failing test ever waits that long."""


@asynccontextmanager
async def patience(seconds: float = HANG_S) -> AsyncIterator[Callable[[], None]]:
    """Bound the time since the last progress, not the whole time.

    Yields:
        A function that starts the clock again. Call it for each sign of progress.

    Raises:
        TimeoutError: Nothing happened for `seconds`.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds) as limit:

        def progress() -> None:
            if not limit.expired():
                limit.reschedule(loop.time() + seconds)

        yield progress
