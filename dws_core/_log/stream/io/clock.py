"""Where a node gets the time and random numbers. Tests replace it."""

from __future__ import annotations

import random
import secrets
import time
from typing import Final

_EPOCH_BYTES: Final = 8


class Clock:
    """The time of this machine.

    Attributes:
        rng: Source of random numbers.
    """

    def __init__(self) -> None:
        self.rng: random.Random = random.SystemRandom()

    def now_ms(self) -> int:
        """Return the time, in milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def new_epoch(self) -> bytes:
        """Return 8 random bytes."""
        return secrets.token_bytes(_EPOCH_BYTES)
