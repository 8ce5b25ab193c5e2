"""Whether a live tail is far behind its stream."""

from __future__ import annotations


class Lag:
    """The delay of one tail, measured by probes of this node. The caller passes the time, in seconds.

    The clocks of publishers differ. So an old envelope is only a suspicion, and the way of a probe through the stream
    decides. A tail that is at the end of its stream costs no probe.

    Args:
        behind_s: Delay above which the tail is far behind, and minimum time between two probes, in seconds.

    Attributes:
        is_behind: Whether the tail is far behind.
    """

    def __init__(self, behind_s: float) -> None:
        self.is_behind = False
        self._behind_s = behind_s
        self._number = 0
        self._asked_at: float | None = None
        self._quiet_until = 0.0

    def read(self, age_s: float, now: float) -> bool:
        """Note the age of an envelope that the tail reads. Return whether to send a probe."""
        if age_s <= self._behind_s:
            self.is_behind, self._asked_at = False, None
        elif self._asked_at is None:
            return now >= self._quiet_until
        elif now - self._asked_at > self._behind_s:
            self.is_behind = True
        return False

    def asked(self, number: int, now: float) -> None:
        """Note that a probe is sent."""
        self._number, self._asked_at, self._quiet_until = number, now, now + self._behind_s

    def seen(self, number: int, now: float) -> None:
        """Note that the tail reads a probe of this node."""
        if self._asked_at is not None and number >= self._number:
            self.is_behind = now - self._asked_at > self._behind_s
            self._asked_at = None
