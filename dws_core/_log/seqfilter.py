"""Dropping what a publisher sent twice."""

from __future__ import annotations

from collections import OrderedDict


class SeqFilter:
    """Tells a partition's new records from repeats.

    A publisher numbers its records and resends unanswered ones in order, under their numbers. However an old and a new
    connection interleave, first occurrences stay in order; so "not above the highest seen" is exactly "seen".

    Args:
        publishers: How many publishers to remember; the one that was silent for longest is forgotten first.
    """

    def __init__(self, *, publishers: int = 4096) -> None:
        self._publishers = publishers
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def accept(self, publisher: bytes, seq: int) -> bool:
        """Say whether a record is new, and remember it."""
        if seq <= self._seen.get(publisher, 0):
            return False
        self._seen[publisher] = seq
        self._seen.move_to_end(publisher)
        if len(self._seen) > self._publishers:
            self._seen.popitem(last=False)
        return True
