"""Causes faults while the nodes of the broker suite work on."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from dws_core.testing.faults.broker_faults import BrokerFaults

_BEAT_S: Final = 0.001
_SHORT_S: Final = 0.02
"""A fault that takes less time may block the event loop. Also a busy machine often delays a loop for this long."""

_MOST: Final = 0.8
_CALLS: Final = 3
"""Number of calls of a fault before it is judged, because a busy machine may delay the loop during some of them."""


class Cause:
    """Causes the faults of a driver. Plain functions run in a thread, so that the event loop continues.

    Args:
        faults: The driver, or None if the suite has none.
    """

    def __init__(self, faults: BrokerFaults | None) -> None:
        self._faults = faults
        self._pauses: defaultdict[str, list[float]] = defaultdict(list)

    async def __call__(self, *names: str) -> None:
        """Cause faults one after the other, and return when they have happened."""
        for name in names:
            async with self._measure(name):
                await _call(getattr(self._faults, name))

    def has(self, name: str) -> bool:
        """Return whether the driver can cause a fault."""
        return callable(getattr(self._faults, name, None)) and (
            getattr(type(self._faults), name, None) is not getattr(BrokerFaults, name, None)
        )

    @property
    def blocking(self) -> list[str]:
        """The faults that blocked the event loop in each of at least three calls."""
        judged = {name: shares for name, shares in self._pauses.items() if len(shares) >= _CALLS}
        return [name for name, shares in judged.items() if min(shares) > _MOST]

    def check(self) -> None:
        """Check that no fault blocked the event loop.

        Raises:
            AssertionError: A fault did, so that the nodes stood still and had nothing in flight.
        """
        names = ", ".join(f"fault.{name}()" for name in self.blocking)
        assert not names, (
            f"{names} blocked the event loop, so the nodes stood still during the fault. "
            "Fix: write it as a plain function, `def` without `async`, which the suite runs in a thread"
        )

    @contextlib.asynccontextmanager
    async def _measure(self, name: str) -> AsyncIterator[None]:
        """Measure the longest pause of the event loop, as a share of the duration of the block."""
        loop = asyncio.get_running_loop()
        began = last = loop.time()
        longest, beating = 0.0, True

        def beat() -> None:
            nonlocal last, longest
            last, longest = loop.time(), max(longest, loop.time() - last)
            if beating:
                loop.call_later(_BEAT_S, beat)

        beat()
        try:
            yield
        finally:
            beating = False
            now = loop.time()
            longest = max(longest, now - last)
            self._pauses[name].append(longest / (now - began) if now - began > _SHORT_S else 0.0)


async def _call(fault: Callable[[], Awaitable[None] | None]) -> None:
    called: Any = fault() if inspect.iscoroutinefunction(fault) else await asyncio.to_thread(fault)
    if inspect.isawaitable(called):
        await called
