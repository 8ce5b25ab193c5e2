"""`Cause`: faults do not block the event loop, and the suite notices if one does."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dws_core.testing import BrokerFaults
from dws_core.testing.faults.cause import Cause

pytestmark = pytest.mark.anyio


class Faults(BrokerFaults):
    """Faults that take a while in different ways."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def restart(self) -> None:
        self.threads.append(threading.get_ident())
        time.sleep(0.05)

    async def cut_tail(self) -> None:
        self.threads.append(threading.get_ident())
        time.sleep(0.05)  # noqa: ASYNC251 -- the fault under test

    async def cut_commands(self) -> None:
        await asyncio.to_thread(time.sleep, 0.05)

    def wipe(self) -> asyncio.Future[None]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop), loop=self.loop)

    loop: asyncio.AbstractEventLoop


async def test_plain_function_runs_in_thread() -> None:
    faults = Faults()
    cause = Cause(faults)
    await cause("restart", "restart")
    await cause("restart")
    assert threading.get_ident() not in faults.threads
    assert cause.blocking == []


async def test_async_method_runs_on_event_loop() -> None:
    faults = Faults()
    await Cause(faults)("cut_tail")
    assert faults.threads == [threading.get_ident()]


async def test_result_of_plain_function_is_awaited() -> None:
    faults = Faults()
    faults.loop = asyncio.get_running_loop()
    await Cause(faults)("wipe")


async def test_fault_that_blocks_event_loop_is_named() -> None:
    cause = Cause(Faults())
    for _ in range(3):
        await cause("cut_tail", "cut_commands")
    assert cause.blocking == ["cut_tail"]
    with pytest.raises(AssertionError, match=r"fault.cut_tail\(\) blocked the event loop.*Fix: write it as a plain"):
        cause.check()


async def test_single_pause_of_event_loop_is_no_failure() -> None:
    cause = Cause(Faults())
    await cause("cut_tail", "cut_tail")
    cause.check()


async def test_error_of_fault_is_raised() -> None:
    with pytest.raises(NotImplementedError):
        await Cause(BrokerFaults())("freeze")
