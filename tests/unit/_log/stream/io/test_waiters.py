from __future__ import annotations

import asyncio

import pytest

from dws_core._errors import BrokerClosed, BrokerUnavailable
from dws_core._log.stream.io.waiters import Waiters


async def test_live_partition_ends_its_waiters() -> None:
    waiters = Waiters()
    first, other = waiters.until_live(1), waiters.until_live(2)
    waiters.live(1)
    assert first.done()
    assert not other.done()
    waiters.live(2)
    assert other.done()


async def test_reached_place_ends_its_waiters() -> None:
    waiters = Waiters()
    near, far, other = waiters.until_reached(1, 5), waiters.until_reached(1, 6), waiters.until_reached(2, 5)
    waiters.reached(1, 5)
    assert [future.done() for future in (near, far, other)] == [True, False, False]
    waiters.reached(2, 5)
    waiters.reached(1, 9)
    assert far.done()
    waiters.reached(1, 10)


async def test_probe_ends_its_waiter() -> None:
    waiters = Waiters()
    future = waiters.until_probe(1, 7)
    assert waiters.until_probe(1, 7) is future
    waiters.probe_seen(1, 6)
    assert not future.done()
    waiters.probe_seen(1, 7)
    assert future.done()


async def test_lost_session_fails_those_that_wait_for_a_place() -> None:
    waiters = Waiters()
    place, probe, live = waiters.until_reached(1, 5), waiters.until_probe(1, 1), waiters.until_live(1)
    waiters.fail(BrokerUnavailable("cut.", fix="wait"))
    for future in (place, probe):
        with pytest.raises(BrokerUnavailable):
            await future
    assert not live.done()
    waiters.fail(BrokerClosed("stopped.", fix="start"))
    with pytest.raises(BrokerClosed):
        await live


async def test_cancelled_waiter_is_ignored() -> None:
    waiters = Waiters()
    futures = [waiters.until_reached(1, 5), waiters.until_probe(1, 1), waiters.until_live(1)]
    for future in futures:
        future.cancel()
    waiters.reached(1, 5)
    waiters.probe_seen(1, 1)
    waiters.live(1)
    again: list[asyncio.Future[None]] = [waiters.until_reached(1, 5)]
    again[0].cancel()
    waiters.fail(BrokerUnavailable("cut.", fix="wait"))
    assert all(future.cancelled() for future in futures + again)
