"""Who gets what: an index of filters with its answers remembered by topic."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Any, Generic, TypeVar

from dws_core._topics.interface import TopicIndex, TopicMatcher

R = TypeVar("R", bound=Hashable)

_NOTHING: frozenset[str] = frozenset()


class Router(Generic[R]):
    """Filters of receivers, and the receivers of topics.

    Args:
        matcher: The topic language.
        cache_size: Topics whose receivers are remembered.
    """

    def __init__(self, matcher: TopicMatcher, *, cache_size: int = 65_536) -> None:
        self._matcher = matcher
        self._index: TopicIndex[Any] = matcher.index()
        self._filters: dict[R, dict[str, None]] = {}
        self._cache: dict[str, tuple[R, ...]] = {}
        self._cache_size = cache_size

    def __len__(self) -> int:
        return len(self._index)

    def subscribe(self, receiver: R, filter_: str) -> bool:
        """Add a filter; False: it was there.

        Raises:
            InvalidFilter: It breaks a rule of the topic language.
        """
        self._matcher.check_filter(filter_)
        if not self._index.add(filter_, receiver):
            return False
        self._filters.setdefault(receiver, {})[filter_] = None
        self._invalidate(filter_)
        return True

    def unsubscribe(self, receiver: R, filter_: str) -> bool:
        """Remove a filter; False: it was not there."""
        if not self._index.discard(filter_, receiver):
            return False
        filters = self._filters[receiver]
        del filters[filter_]
        if not filters:
            del self._filters[receiver]
        self._invalidate(filter_)
        return True

    def remove(self, receiver: R) -> None:
        """Remove all filters of a receiver."""
        for filter_ in self._filters.pop(receiver, ()):
            self._index.discard(filter_, receiver)
            self._invalidate(filter_)

    def filters(self, receiver: R) -> AbstractSet[str]:
        """Return the filters of a receiver, in the order they were added: a live view."""
        found = self._filters.get(receiver)
        return _NOTHING if found is None else found.keys()

    def receivers(self, topic: str) -> tuple[R, ...]:
        """Return who wants a topic, each once even if several of its filters match."""
        found = self._cache.get(topic)
        if found is None:
            found = tuple(self._index.lookup(topic))
            if len(self._cache) >= self._cache_size:
                del self._cache[next(iter(self._cache))]
            self._cache[topic] = found
        return found

    def _invalidate(self, filter_: str) -> None:
        if self._matcher.is_exact(filter_):
            self._cache.pop(filter_, None)
        else:
            self._cache.clear()
