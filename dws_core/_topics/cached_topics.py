"""The topics of a cache by level. Built when it is first needed, in steps, and dropped when it is no longer used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dws_core._topics.filters import is_reserved
from dws_core._topics.tree import TopicTree
from dws_core._topics.trie import TrieIndex


class CachedTopics:
    """An index of the topics of a `LogCache`, without the reserved ones.

    Args:
        topics: The topics of the cache. It is a live view.
        now: The time, in seconds.

    Attributes:
        used: Time of the last use, in seconds.
    """

    __slots__ = ("_left", "_topics", "_tree", "used")

    def __init__(self, topics: Collection[str], *, now: float) -> None:
        self._topics = topics
        self._left = list(topics)
        self._tree = TopicTree()
        self.used = now

    def add(self, topic: str) -> None:
        """Add a topic that the cache has added."""
        if not is_reserved(topic):
            self._tree.add(topic)

    def discard(self, topic: str) -> None:
        """Remove a topic that the cache has evicted."""
        self._tree.discard(topic)

    def build(self, most: int | None = None) -> bool:
        """Add at most this number of the topics that the cache had at the beginning. Return whether some are left."""
        count = len(self._left) if most is None else min(most, len(self._left))
        for _ in range(count):
            topic = self._left.pop()
            if topic in self._topics:
                self.add(topic)
        return bool(self._left)

    def matching(self, filters: TrieIndex[Any], *, now: float) -> Iterator[str]:
        """Yield the topics that match a filter with a wildcard, each once."""
        self.build()
        self.used = now
        return self._tree.matching(filters)
