"""The time limit of connections that are over their limit."""

from __future__ import annotations

import asyncio

from support.timeouts import HANG_S

from dws_core._node.sending.overruns import OVERRUN_S, Overruns


class _Outbox:
    def __init__(self, overruns: Overruns, *, stalled_s: float = 0.0) -> None:
        self.moved_s = asyncio.get_running_loop().time() - stalled_s
        self.overflowed = asyncio.Event()
        self._overruns = overruns

    def overflow(self) -> None:
        self._overruns.end(self)
        self.overflowed.set()


async def test_outbox_overflows_when_its_time_is_over() -> None:
    overruns = Overruns()
    outbox = _Outbox(overruns, stalled_s=OVERRUN_S - 0.01)
    overruns.begin(outbox)
    overruns.begin(outbox)
    assert outbox in overruns
    async with asyncio.timeout(HANG_S):
        await outbox.overflowed.wait()
    assert not overruns


async def test_outbox_that_moved_long_ago_overflows_at_once() -> None:
    outbox = _Outbox(overruns := Overruns(), stalled_s=OVERRUN_S)
    overruns.begin(outbox)
    assert outbox.overflowed.is_set()
    assert not overruns


async def test_outbox_that_catches_up_is_forgotten() -> None:
    overruns = Overruns()
    outbox = _Outbox(overruns)
    overruns.begin(outbox)
    overruns.end(outbox)
    overruns.end(outbox)
    assert not overruns
    assert not outbox.overflowed.is_set()
