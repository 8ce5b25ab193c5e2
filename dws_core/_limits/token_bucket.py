"""A token bucket. The caller passes the time."""

from __future__ import annotations


class TokenBucket:
    """Limits the rate of events.

    Args:
        per_s: Maximum average rate, in events per second.
        burst: Maximum number of events at once.
        now: The time, in seconds of a monotonic clock.

    Attributes:
        updated: Time of the last event, in seconds.
    """

    __slots__ = ("_burst", "_per_s", "_refused", "_tokens", "updated")

    def __init__(self, per_s: float, burst: int, *, now: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._refused = 0.0
        self.updated = now

    def take(self, now: float, cost: int = 1) -> float:
        """Take tokens at the time `now`, in seconds of a monotonic clock.

        Args:
            now: The time.
            cost: Number of tokens. A cost of the whole burst or more needs one token less than a full bucket has, and
                leaves a debt.

        Returns:
            0.0 if the event is allowed. Otherwise no token was taken, and this is the time after which to try again, in
            seconds. The times of events that are refused together differ, so that not all of them try again at once.
        """
        gained = (now - self.updated) * self._per_s
        self._tokens = min(self._burst, self._tokens + gained)
        self._refused = max(0.0, self._refused - gained)
        self.updated = now
        needed = 1.0 if cost == 1 else min(float(cost), self._burst - 1.0)
        if self._tokens >= needed:
            self._tokens -= cost
            return 0.0
        waiting, self._refused = self._refused, min(self._burst, self._refused + cost)
        return (needed - self._tokens + waiting) / self._per_s

    def charge(self, cost: int) -> None:
        """Take tokens for an event that is already carried out. The bucket may owe them."""
        self._tokens -= cost
