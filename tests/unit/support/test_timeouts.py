"""A wait ends without progress, and continues while there is some."""

from __future__ import annotations

import asyncio

import pytest
from support.timeouts import progress_timeout


async def test_progress_timeout_ends_only_without_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now, steps = loop.time(), 0
    monkeypatch.setattr(loop, "time", lambda: now)

    async def work_and_hang() -> None:
        nonlocal now, steps
        async with progress_timeout(10.0) as progress:
            for steps in range(1, 6):  # noqa: B007 -- read outside
                now += 9.0
                await asyncio.sleep(0)  # the loop looks at its clock
                progress()
            now += 11.0
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await work_and_hang()
    assert steps == 5


async def test_progress_after_timeout_is_ignored() -> None:
    async def hang() -> None:
        async with progress_timeout(0.0) as progress:
            try:
                await asyncio.Event().wait()
            finally:
                progress()

    with pytest.raises(TimeoutError):
        await hang()
