"""The topics that a connection wants, or several connections together: names, and filters with wildcards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import chain

from dws_core._topics.filters import is_reserved
from dws_core._topics.interface import TopicIndex


class WantedMatch:
    """A `TopicMatch` of exact topics and filters. Any number of filters cost one look-up for each topic.

    It does not change, so that brokers may call it in other threads.

    Args:
        names: The exact topics.
        filters: Filters with wildcards.
        new_index: Returns an empty index of the topic language.

    Attributes:
        names: The exact topics.
        filters: The filters with wildcards.
        index: The index of the filters.
        new_index: The function that made it.
    """

    __slots__ = ("filters", "index", "names", "new_index")

    def __init__(
        self, names: Iterable[str], filters: Iterable[str], new_index: Callable[[], TopicIndex[object]]
    ) -> None:
        self.names = frozenset(names)
        self.filters = frozenset(filters)
        self.new_index = new_index
        self.index: TopicIndex[object] = new_index()
        for filter_ in self.filters:
            self.index.add(filter_, filter_)

    def __call__(self, topic: str) -> bool:
        """Return whether the topic is wanted."""
        return topic in self.names or (not is_reserved(topic) and bool(self.index.lookup(topic)))


def joined(matches: Collection[WantedMatch], names: Iterable[str]) -> WantedMatch:
    """Return the union of wanted topics and further names."""
    first = next(iter(matches))
    every_name = chain(names, chain.from_iterable(match.names for match in matches))
    return WantedMatch(every_name, chain.from_iterable(match.filters for match in matches), first.new_index)
