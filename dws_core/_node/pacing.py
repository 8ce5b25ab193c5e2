"""Turns: what thousands of clients may ask for at once is done in small portions, and live traffic goes in between."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_A_TICK: Final = 4
"""Handshakes or steps of a replay, each about half a millisecond, before the event loop looks at its sockets again."""


class Pacer:
    """Lets so many go on in one tick of the event loop; the others wait, first come, first served.

    Args:
        a_tick: How many.
    """

    def __init__(self, a_tick: int = _A_TICK) -> None:
        self._a_tick = a_tick
        self._left = a_tick
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._woken = False

    async def wait_turn(self) -> None:
        """Wait for a turn; while few ask, it comes at once."""
        loop = asyncio.get_running_loop()
        if not self._woken:
            self._woken = True
            loop.call_soon(self._next_tick, loop)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._woken, self._left = False, self._a_tick
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                self._left -= 1
        if self._waiting or self._left < self._a_tick:
            self._woken = True
            loop.call_soon(self._next_tick, loop)
