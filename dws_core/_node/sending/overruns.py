"""Connections that are over their limit and get a moment to read."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

OVERRUN_S: Final = 1.0
"""Time in seconds in which a connection over its limit must read at least half of it."""

STALL_S: Final = 0.1
"""Time in seconds after which a socket that accepts nothing counts as not being read."""

BURST_LIMITS: Final = 8
"""Number of limits that a burst may fill."""


class Limited(Protocol):
    """An outbox."""

    @property
    def moved_s(self) -> float:
        """Time when the socket last accepted queued data, or when it stopped to, in seconds of the loop's clock."""
        ...

    def overflow(self) -> None:
        """Close the connection, because it is too slow."""
        ...


class Overruns:
    """The outboxes of a node that are over their limit. Usually empty, which delivery checks with a single truth test."""

    __slots__ = ("_timers",)

    def __init__(self) -> None:
        self._timers: dict[Limited, asyncio.TimerHandle] = {}

    def __bool__(self) -> bool:
        return bool(self._timers)

    def __contains__(self, outbox: object) -> bool:
        return outbox in self._timers

    def begin(self, outbox: Limited) -> None:
        """Start the time limit of an outbox. It overflows at once if its socket has accepted nothing for that long."""
        if outbox in self._timers:
            return
        loop, due_s = asyncio.get_running_loop(), outbox.moved_s + OVERRUN_S
        if due_s <= loop.time():
            outbox.overflow()
        else:
            self._timers[outbox] = loop.call_at(due_s, outbox.overflow)

    def end(self, outbox: Limited) -> None:
        """Forget an outbox that has caught up or is closed. An outbox that is not here is no error."""
        timer = self._timers.pop(outbox, None)
        if timer is not None:
            timer.cancel()
