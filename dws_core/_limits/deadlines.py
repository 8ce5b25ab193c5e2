"""Deadlines by key, in the order in which they pass. The caller passes the time."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SPARE: Final = 64
"""Number of outdated entries that are kept in any case."""


class Deadlines(Generic[K]):
    """At most one deadline for each key. Setting, removing and finding the next one take logarithmic time.

    Pure. An outdated entry stays in the heap until it is due, or until most entries are outdated, so the memory is
    proportional to the number of keys.
    """

    def __init__(self) -> None:
        self._current: dict[K, int] = {}  # the number of the entry that counts
        self._heap: list[tuple[float, int, K]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._current)

    @property
    def first(self) -> float | None:
        """The next deadline. None if there is none."""
        while self._heap and self._is_outdated(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def set(self, key: K, at: float) -> None:
        """Set or replace the deadline of a key, in seconds of the caller's clock."""
        self._number += 1
        self._current[key] = self._number
        heappush(self._heap, (at, self._number, key))
        self._shrink()

    def discard(self, key: K) -> None:
        """Remove the deadline of a key. A key without a deadline is no error."""
        if self._current.pop(key, None) is not None:
            self._shrink()

    def pop(self, now: float) -> K | None:
        """Remove and return a key whose deadline has passed, the earliest first. None if there is none."""
        first = self.first
        if first is None or first > now:
            return None
        key = heappop(self._heap)[2]
        del self._current[key]
        return key

    def _shrink(self) -> None:
        if len(self._heap) > 2 * len(self._current) + _SPARE:
            self._heap = [entry for entry in self._heap if not self._is_outdated(entry)]
            heapify(self._heap)

    def _is_outdated(self, entry: tuple[float, int, K]) -> bool:
        return self._current.get(entry[2]) != entry[1]
