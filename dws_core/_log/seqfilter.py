"""Removal of records that a publisher has sent twice."""

from __future__ import annotations

from collections import OrderedDict


class SeqFilter:
    """Distinguishes the new records of a partition from repeats.

    A publisher numbers its records, and resends unanswered records in order, with the same numbers. First occurrences
    therefore stay in order, even if an old and a new connection interleave. So a record is a repeat if and only if its
    number is not above the highest number seen.

    Args:
        publishers: Maximum number of publishers to remember. The publisher with the oldest record is forgotten first.
    """

    def __init__(self, *, publishers: int = 4096) -> None:
        self._publishers = publishers
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def accept(self, publisher: bytes, seq: int) -> bool:
        """Return whether a record is new, and remember it."""
        if seq <= self._seen.get(publisher, 0):
            return False
        self._seen[publisher] = seq
        self._seen.move_to_end(publisher)
        if len(self._seen) > self._publishers:
            self._seen.popitem(last=False)
        return True
