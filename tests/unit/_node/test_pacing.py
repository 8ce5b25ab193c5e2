"""`Pacer`: a limit on how many callers continue in one tick."""

from __future__ import annotations

import asyncio

from dws_core._node.pacing import Pacer


async def test_few_callers_do_not_wait() -> None:
    pacer = Pacer(2)
    before = asyncio.get_running_loop().time()
    tick = _Ticks()
    await pacer.wait_turn()
    await pacer.wait_turn()
    assert tick.count == 0
    assert asyncio.get_running_loop().time() - before < 1
    await tick.stop()


async def test_callers_continue_in_order_with_limit_per_tick() -> None:
    pacer, went, ticks = Pacer(2), list[tuple[int, int]](), _Ticks()

    async def one(number: int) -> None:
        await pacer.wait_turn()
        went.append((number, ticks.count))

    async with asyncio.TaskGroup() as group:
        for number in range(9):
            group.create_task(one(number))
    assert [number for number, _ in went] == list(range(9))
    by_tick = [tick for _, tick in went]
    assert max(by_tick.count(tick) for tick in by_tick) <= 2
    await ticks.stop()


async def test_cancelled_caller_uses_no_turn() -> None:
    pacer, went = Pacer(1), list[int]()

    async def one(number: int) -> None:
        await pacer.wait_turn()
        went.append(number)

    tasks = [asyncio.get_running_loop().create_task(one(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert went == [0, 1, 3]


async def test_old_turn_does_not_count() -> None:
    pacer, ticks = Pacer(1), _Ticks()
    await pacer.wait_turn()
    for _ in range(4):
        await asyncio.sleep(0)
    count = ticks.count
    await pacer.wait_turn()
    assert ticks.count == count
    await ticks.stop()


class _Ticks:
    """Counts the ticks of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    async def stop(self) -> None:
        self._handle.cancel()
