"""The broker suite waits while messages arrive, and not forever."""

from __future__ import annotations

import asyncio

import pytest

from dws_core.testing.suites.waiting import limited


async def take(news: int, pause_s: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Receive something `news` times, every `pause_s` seconds of a simulated clock, and then nothing."""
    loop = asyncio.get_running_loop()
    now, taken = loop.time(), 0
    monkeypatch.setattr(loop, "time", lambda: now)
    async with limited(10.0, lambda: f"only {taken} arrived") as progress:
        while taken < news:
            now += pause_s
            await asyncio.sleep(0)  # the loop reads its clock
            progress()
            taken += 1
        now += 11.0
        await asyncio.Event().wait()
    return taken


async def test_progress_restarts_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="only 5 arrived"):
        await take(5, 9.0, monkeypatch)


async def test_endless_progress_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="only 23 arrived"):
        await take(1000, 9.0, monkeypatch)


async def test_timeout_of_broker_is_not_converted() -> None:
    async def connect() -> None:
        async with limited(10.0, lambda: "the suite gave up"):
            raise TimeoutError("the broker gave up")

    with pytest.raises(TimeoutError, match="the broker gave up"):
        await connect()
