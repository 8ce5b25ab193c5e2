"""Detection of dead connections that report no error."""

from __future__ import annotations

from typing import Literal


class Watchdog:
    """Decides when to probe a silent connection, and when to treat it as dead. The caller passes the time.

    A connection is dead only if a probe has no answer. So a process that was suspended itself does not abort a healthy
    connection.

    Args:
        now: The time, in seconds of a monotonic clock.
        probe_s: Time without received data before a probe, and between probes, in seconds.
        dead_s: Time without received data before the connection is dead, in seconds. Must be greater than `probe_s`.

    Raises:
        ValueError: The times are not in order.
    """

    def __init__(self, now: float, *, probe_s: float = 1.0, dead_s: float = 3.0) -> None:
        if not 0 < probe_s < dead_s:
            raise ValueError(
                f"Watchdog(probe_s={probe_s}, dead_s={dead_s}) must have 0 < probe_s < dead_s. Fix: increase dead_s"
            )
        self._probe_s = probe_s
        self._patience_s = dead_s - probe_s
        self._look_at = now + probe_s
        self._asked_at: float | None = None  # when the first unanswered probe was sent

    @property
    def look_at(self) -> float:
        """Time of the next call of `check`."""
        return self._look_at

    def heard(self, now: float) -> None:
        """Report that a record or the answer to a probe has arrived through the log."""
        self._asked_at = None
        self._look_at = now + self._probe_s

    def check(self, now: float) -> Literal["wait", "probe", "dead"]:
        """Return what to do now: wait until `look_at`, send a probe, or abort the connection."""
        if self._asked_at is not None and now >= self._asked_at + self._patience_s:
            return "dead"
        if now < self._look_at:
            return "wait"
        if self._asked_at is None:
            self._asked_at = now
        self._look_at = min(now + self._probe_s, self._asked_at + self._patience_s)
        return "probe"
