"""Async tests in virtual time: they never wait, and a deadline of an hour passes at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from simulation.loop import VirtualLoop, end

P = ParamSpec("P")


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time, for an hour at most. It fails if it leaves a task or if a callback failed."""

    async def limited(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(3600):
            await test(*args, **kwargs)

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = VirtualLoop()
        try:
            loop.run_until_complete(limited(*args, **kwargs))
            loop.run_until_complete(asyncio.sleep(0))
            left = [str(task) for task in asyncio.all_tasks(loop)]
        finally:
            end(loop)
        assert not left + loop.failures

    return run
