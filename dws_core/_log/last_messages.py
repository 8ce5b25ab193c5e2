"""The last messages of a topic, found in a log whose reads return all records after an offset, or a gap.

Each read starts further back, until there are enough records. If a read is a gap (trimmed, too many, unreadable), the search
continues where the broker says, or by bisection between the last complete read and the gap. No I/O: the caller reads.
"""

from __future__ import annotations

from typing import Final

from dws_core._log.records import GapReason, Offset, ReadResult, Record

_TOO_FAR: Final = frozenset({GapReason.TRIMMED, GapReason.TOO_MANY, GapReason.UNREADABLE})
_FACTOR: Final = 8


class LastMessages:
    """A search for the last `limit` records.

    Args:
        until: Offset at which the search ends, inclusive.
        limit: Maximum number of records to find.
        first_step: Number of offsets that the first read covers.

    Attributes:
        until: Offset at which the search ends, inclusive.
        limit: Maximum number of records to find.
        since: Exclusive lower offset of the next read, whose upper offset is `until`. Unused when `done` is True.
        done: Whether the search has ended and `records` is the result.
        gap: Why the search has failed, or None.
    """

    def __init__(self, until: Offset, limit: int, *, first_step: int = 1024) -> None:
        self.since: Offset = max(0, until - first_step)
        self.done: bool = until == 0
        self.gap: GapReason | None = None
        self.until = until
        self.limit = limit
        self._found: tuple[Record, ...] = ()
        self._complete_from: Offset = until  # a read from this offset is complete
        self._gap_until: Offset = -1  # a read from this offset is a gap

    @property
    def records(self) -> tuple[Record, ...]:
        """The last records that were found, at most `limit`, in ascending order."""
        return self._found[-self.limit :]

    def take(self, result: ReadResult) -> None:
        """Process the result of a read, and update `done` and `since`."""
        if result.gap is None or result.gap is GapReason.AHEAD:  # the place is calculated, the log need not have it
            self._complete_from, self._found = self.since, result.records
        elif result.gap in _TOO_FAR:
            self._gap_until = max(self.since, (result.next_since or 0) - 1)
        else:
            self.gap, self._found, self.done = result.gap, (), True
            return
        self.done = len(self._found) >= self.limit or self._complete_from - self._gap_until <= 1
        if result.next_since is not None:
            self.since = result.next_since
        elif self._gap_until >= 0:
            self.since = (self._complete_from + self._gap_until) // 2
        else:
            self.since = max(0, self.until - _FACTOR * (self.until - self.since))
