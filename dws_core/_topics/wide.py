"""Filters with many levels and several `+`, in bit sets.

In a trie, such filters may lead a topic with many levels to as many nodes as there are filters. Here a topic costs a few
operations for each of its levels and each block of filters.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from dws_core._topics.filters import is_reserved

R = TypeVar("R", bound=Hashable)

_BLOCK: Final = 256
"""Number of filters in a block. Larger bit sets would take more memory if all levels of all filters differ."""

_SHORT_LEVELS: Final = 8


def is_wide(filter_: str) -> bool:
    """Return whether a valid filter has more than 8 levels and at least two `+`."""
    return filter_.count("/") >= _SHORT_LEVELS and filter_.count("+") > 1


class _Block(Generic[R]):
    """Some filters, each with a bit. All other members are sets of these bits.

    Attributes:
        filters: The filters and their receivers, by bit.
        used: The bits of all filters.
        levels: For each level, the filters by their text there.
        ends: The filters by their number of levels.
        rests: The filters that end with `#`, by the number of levels before it.
    """

    __slots__ = ("ends", "filters", "levels", "rests", "used")

    def __init__(self) -> None:
        self.filters: dict[int, tuple[str, dict[R, None]]] = {}
        self.used = 0
        self.levels: list[dict[str, int]] = []
        self.ends: dict[int, int] = {}
        self.rests: dict[int, int] = {}

    def add(self, filter_: str, receivers: dict[R, None]) -> int:
        """Add a filter. Return its bit."""
        bit = ~self.used & (self.used + 1)  # the lowest unused one
        self.used |= bit
        self.filters[bit] = filter_, receivers
        levels, ends = self._places(filter_)
        for level, found in levels:
            found[level] = found.get(level, 0) | bit
        ends[len(levels)] = ends.get(len(levels), 0) | bit
        return bit

    def discard(self, bit: int) -> None:
        """Remove a filter."""
        filter_, _ = self.filters.pop(bit)
        self.used &= ~bit
        levels, ends = self._places(filter_)
        for level, found in levels:
            _clear(found, level, bit)
        _clear(ends, len(levels), bit)

    def matching(self, levels: Sequence[str]) -> int:
        """Return the bits of the filters that match a topic with these levels."""
        alive, found = self.used, 0
        for number, level in enumerate(levels):
            found |= alive & self.rests.get(number, 0)
            texts = self.levels[number] if number < len(self.levels) else {}
            any_level = 0 if number == 0 and is_reserved(level) else texts.get("+", 0)  # MQTT 5.0 §4.7.2
            alive &= texts.get(level, 0) | any_level
            if not alive:
                return found
        return found | alive & (self.ends.get(len(levels), 0) | self.rests.get(len(levels), 0))

    def _places(self, filter_: str) -> tuple[list[tuple[str, dict[str, int]]], dict[int, int]]:
        """Return the levels of a filter with the sets that contain it, and the sets by its end."""
        levels = filter_.split("/")
        ends = self.ends
        if levels[-1] == "#":
            levels.pop()
            ends = self.rests
        while len(self.levels) < len(levels):
            self.levels.append({})
        return list(zip(levels, self.levels, strict=False)), ends


class WideFilters(Generic[R]):
    """Filters and their receivers."""

    __slots__ = ("_blocks", "_open", "_places")

    def __init__(self) -> None:
        self._blocks: dict[_Block[R], None] = {}
        self._open: dict[_Block[R], None] = {}  # those with room
        self._places: dict[str, tuple[_Block[R], int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def receivers(self, filter_: str) -> dict[R, None]:
        """Return the receivers of a filter, which is added if necessary. Only `discard` may remove any."""
        if (place := self._places.get(filter_)) is not None:
            block, bit = place
            return block.filters[bit][1]
        if (free := next(iter(self._open), None)) is None:
            free = _Block()
            self._blocks[free] = self._open[free] = None
        receivers: dict[R, None] = {}
        self._places[filter_] = free, free.add(filter_, receivers)
        if len(free.filters) == _BLOCK:
            del self._open[free]
        return receivers

    def discard(self, filter_: str, receiver: R) -> bool:
        """Remove a receiver of a filter. Return False if the filter does not have it."""
        if (place := self._places.get(filter_)) is None:
            return False
        block, bit = place
        receivers = block.filters[bit][1]
        if receiver not in receivers:
            return False
        del receivers[receiver]
        if not receivers:
            del self._places[filter_]
            block.discard(bit)
            self._open[block] = None
            if not block.filters:
                del self._blocks[block], self._open[block]
        return True

    def matching(self, topic: str) -> Iterator[dict[R, None]]:
        """Yield the receivers of each filter that matches a valid topic."""
        levels = topic.split("/")
        for block in self._blocks:
            found = block.matching(levels)
            while found:
                bit = found & -found
                found ^= bit
                yield block.filters[bit][1]


def _clear(sets: dict[str, int] | dict[int, int], key: str | int, bit: int) -> None:
    """Remove a bit from a set, and the set if it is empty then."""
    known: dict[str | int, int] = sets  # type: ignore[assignment]  # one function for both kinds of keys
    known[key] &= ~bit
    if not known[key]:
        del known[key]
