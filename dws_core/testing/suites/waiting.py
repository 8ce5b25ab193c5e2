"""Time limits of the broker suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

_LONGEST: Final = 20
"""Maximum length of a wait, as a multiple of its limit, because a broker may repeat a message forever."""


@asynccontextmanager
async def limited(limit_s: float, failure: Callable[[], str]) -> AsyncIterator[Callable[[], None]]:
    """Limit the time since the last progress, not the length of the wait.

    Args:
        limit_s: Maximum time without progress, in seconds.
        failure: Returns the text of the failure.

    Yields:
        A function that reports progress: it restarts the limit.

    Raises:
        AssertionError: The limit was exceeded. A `TimeoutError` that the broker raises is not converted.
    """
    loop = asyncio.get_running_loop()
    last = loop.time() + _LONGEST * limit_s
    limit = asyncio.timeout(limit_s)

    def progress() -> None:
        if not limit.expired():
            limit.reschedule(min(loop.time() + limit_s, last))

    try:
        async with limit:
            yield progress
    except TimeoutError:
        if limit.expired():
            raise AssertionError(failure()) from None
        raise
