"""Finding the last messages of a topic in a log that only answers "everything behind this offset, or a gap".

Reads look further and further back until there are enough; where a read is a gap (trimmed, too many), what can be had is
found by halving. No I/O: the caller reads.
"""

from __future__ import annotations

from typing import Final

from dws_core._log.records import GapReason, Offset, ReadResult, Record

_TOO_FAR: Final = frozenset({GapReason.TRIMMED, GapReason.TOO_MANY})
_FACTOR: Final = 8


class LastMessages:
    """A search for the last `limit` records.

    Args:
        until: Where the log ends for this search.
        limit: Records that are wanted.
        first_step: Offsets that the first read looks back.

    Attributes:
        since: Read `(since, until]` next; meaningless when `done`.
        done: Whether `records` is the answer.
        gap: Why there is no answer; None: there is one.
    """

    def __init__(self, until: Offset, limit: int, *, first_step: int = 1024) -> None:
        self.since: Offset = max(0, until - first_step)
        self.done: bool = until == 0
        self.gap: GapReason | None = None
        self._until = until
        self._limit = limit
        self._found: tuple[Record, ...] = ()
        self._complete_from: Offset = until  # reads from here on are complete
        self._gap_until: Offset = -1  # and from here on they are a gap

    @property
    def records(self) -> tuple[Record, ...]:
        """The last records, ascending, as many as there are."""
        return self._found[-self._limit :]

    def take(self, result: ReadResult) -> None:
        """Take the answer to the read, and say in `done` and `since` how to go on."""
        if result.gap is None:
            self._complete_from, self._found = self.since, result.records
        elif result.gap in _TOO_FAR:
            self._gap_until = self.since
        else:
            self.gap, self._found, self.done = result.gap, (), True
            return
        self.done = len(self._found) >= self._limit or self._complete_from - self._gap_until <= 1
        if self._gap_until >= 0:
            self.since = (self._complete_from + self._gap_until) // 2
        else:
            self.since = max(0, self._until - _FACTOR * (self._until - self.since))
