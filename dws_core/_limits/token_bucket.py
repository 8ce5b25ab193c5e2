"""A token bucket. The caller passes the time."""

from __future__ import annotations


class TokenBucket:
    """Limits the rate of events.

    Args:
        per_s: Maximum average rate, in events per second.
        burst: Maximum number of events at once.
        now: The time, in seconds of a monotonic clock.

    Attributes:
        refused: Number of consecutive events that were refused.
    """

    __slots__ = ("_burst", "_per_s", "_tokens", "_updated", "refused")

    def __init__(self, per_s: float, burst: int, *, now: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._updated = now
        self.refused = 0

    def take(self, now: float) -> float:
        """Take one token at the time `now`, in seconds of a monotonic clock.

        Returns:
            0.0 if the event is allowed. Otherwise no token was taken, and this is the time until the next one, in
            seconds.
        """
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_s)
        self._updated = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            self.refused = 0
            return 0.0
        self.refused += 1
        return (1.0 - self._tokens) / self._per_s
