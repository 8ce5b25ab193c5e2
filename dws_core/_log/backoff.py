"""Delays between attempts."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter, so that nodes that lose the same broker do not reconnect at the same time.

    Args:
        rng: Source of random numbers in [0, 1).
        first_s: Upper bound of the first delay, in seconds. It doubles with each attempt.
        max_s: Upper bound of all delays, in seconds.
    """

    def __init__(self, rng: Callable[[], float] = random.random, *, first_s: float = 0.02, max_s: float = 1.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._rng = rng
        self._bound_s = first_s

    def next_s(self) -> float:
        """Return the delay before the next attempt, in seconds."""
        bound_s = min(self._bound_s, self._max_s)
        self._bound_s = bound_s * 2
        return self._rng() * bound_s

    def reset(self) -> None:
        """Start again with the first delay. Call it when an attempt has succeeded."""
        self._bound_s = self._first_s
