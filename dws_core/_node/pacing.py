"""Pacing of work that thousands of clients may request at once, so that live traffic is served in between."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_TURNS_PER_TICK: Final = 4
"""Handshakes or replay steps, about half a millisecond each, before the event loop looks at its sockets again."""


class Pacer:
    """Allows a few callers to continue in each tick of the event loop. The others wait in order of arrival.

    Args:
        turns_per_tick: Maximum number of callers that continue per tick.
    """

    def __init__(self, turns_per_tick: int = _TURNS_PER_TICK) -> None:
        self._turns_per_tick = turns_per_tick
        self._left = turns_per_tick
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def wait_turn(self) -> None:
        """Wait for a turn. Returns at once while there are few callers."""
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._next_tick, loop)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled, self._left = False, self._turns_per_tick
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # a cancelled caller needs no turn
                turn.set_result(None)
                self._left -= 1
        if self._waiting or self._left < self._turns_per_tick:
            self._scheduled = True
            loop.call_soon(self._next_tick, loop)
