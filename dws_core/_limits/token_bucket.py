"""A token bucket, told the time by its caller."""

from __future__ import annotations


class TokenBucket:
    """Allow `per_s` events a second on average and `burst` at once.

    Attributes:
        refused: Events refused in a row.
    """

    __slots__ = ("_burst", "_per_s", "_tokens", "_updated", "refused")

    def __init__(self, per_s: float, burst: int, *, now: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._updated = now
        self.refused = 0

    def take(self, now: float) -> float:
        """Take one token at the time `now` (seconds of a monotonic clock).

        Returns:
            0.0: allowed. Otherwise nothing was taken, and the seconds until a token is there.
        """
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_s)
        self._updated = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            self.refused = 0
            return 0.0
        self.refused += 1
        return (1.0 - self._tokens) / self._per_s
