"""Routing of topics to receivers: an index of filters with a cache of its results."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Any, Final, Generic, TypeVar

from dws_core._topics.interface import TopicIndex, TopicMatcher

R = TypeVar("R", bound=Hashable)

_NOTHING: Final[frozenset[str]] = frozenset()

_RECEIVERS_PER_TOPIC: Final = 16
"""Average number of receivers per topic for which the cache has room.

A limit on the number of topics alone would allow 65,536 topics of 10,000 receivers, which take 5 GB. Looking up a large
result again is cheap compared with delivering to so many receivers.
"""


_MAX_CHANGED: Final = 1024
"""Maximum number of changed filters that are noted. One more clears the cache."""


class Router(Generic[R]):
    """The filters of each receiver, and the receivers of each topic.

    Pure, and not thread-safe. A receiver without filters takes no memory. Adding or removing an exact filter
    invalidates the cached receivers of that topic. Adding or removing any other filter invalidates those of the topics
    that it matches: the filter is noted, and compared with a cached topic when that topic is used again.

    Args:
        matcher: The topic language.
        cache_size: Maximum number of topics whose receivers are cached. The oldest entry is evicted first. If topics
            have more than 16 receivers on average, fewer topics are cached. If 0, none is.
    """

    def __init__(self, matcher: TopicMatcher, *, cache_size: int = 65_536) -> None:
        self._matcher = matcher
        self._index: TopicIndex[Any] = matcher.index()
        self._filters: dict[R, str | dict[str, None]] = {}  # mostly one each: a str takes a fifth of a dict
        # Not a dict: finding the oldest key of a dict skips over every entry that was removed before it.
        self._cache: OrderedDict[str, tuple[int, tuple[R, ...]]] = OrderedDict()  # the version, and the receivers
        self._version = 0  # counts the changes of filters that are not exact
        self._changed: TopicIndex[Any] = matcher.index()  # these filters
        self._changed_in: dict[str, int] = {}  # the last version in which each of them changed
        self._cache_size = cache_size
        self._cached_receivers = 0

    def __len__(self) -> int:
        """Return the number of (receiver, filter) pairs."""
        return len(self._index)

    def subscribe(self, receiver: R, filter_: str) -> bool:
        """Add a filter. Return False if the receiver has it already.

        Raises:
            InvalidFilter: The filter breaks a rule of the topic language.
        """
        self._matcher.check_filter(filter_)
        if not self._index.add(filter_, receiver):
            return False
        found = self._filters.get(receiver)
        if found is None:
            self._filters[receiver] = filter_
        elif isinstance(found, str):
            self._filters[receiver] = {found: None, filter_: None}
        else:
            found[filter_] = None
        self._forget(filter_)
        return True

    def unsubscribe(self, receiver: R, filter_: str) -> bool:
        """Remove a filter. Return False if the receiver does not have it."""
        found = self._filters.get(receiver)
        if found is None or filter_ not in self.filters(receiver):
            return False
        if isinstance(found, dict) and len(found) > 1:
            del found[filter_]
        else:
            del self._filters[receiver]
        self._index.discard(filter_, receiver)
        self._forget(filter_)
        return True

    def remove(self, receiver: R) -> None:
        """Remove all filters of a receiver. A receiver without filters is no error."""
        filters = self.filters(receiver)
        self._filters.pop(receiver, None)
        for filter_ in filters:
            self._index.discard(filter_, receiver)
            self._forget(filter_)

    def filters(self, receiver: R) -> AbstractSet[str]:
        """Return the filters of a receiver, in the order they were added. The view is valid until the next change."""
        found = self._filters.get(receiver)
        if isinstance(found, str):
            return {found: None}.keys()
        return _NOTHING if found is None else found.keys()

    def receivers(self, topic: str) -> tuple[R, ...]:
        """Return the receivers of a valid topic, in the index's order, each once even if several filters match."""
        found = self._cache.get(topic)
        if found is not None and found[0] == self._version:
            return found[1]
        if found is not None and not self._has_changed(topic, found[0]):
            self._cache[topic] = self._version, found[1]
            return found[1]
        return self._look_up(topic)

    def _has_changed(self, topic: str, version: int) -> bool:
        """Return whether a filter that matches a topic was added or removed after a version."""
        return any(self._changed_in[filter_] > version for filter_ in self._changed.lookup(topic))

    def _look_up(self, topic: str) -> tuple[R, ...]:
        found: tuple[R, ...] = tuple(self._index.lookup(topic))
        self._drop(topic)
        self._cache[topic] = self._version, found
        self._cached_receivers += len(found)
        while self._is_over_full():
            self._cached_receivers -= len(self._cache.popitem(last=False)[1][1])
        return found

    def _is_over_full(self) -> bool:
        topics = len(self._cache)
        too_many_receivers = self._cached_receivers > self._cache_size * _RECEIVERS_PER_TOPIC
        return topics > self._cache_size or (too_many_receivers and topics > 1)

    def _forget(self, filter_: str) -> None:
        if self._matcher.is_exact(filter_):
            self._drop(filter_)
        elif self._cache:
            self._note_change(filter_)

    def _drop(self, topic: str) -> None:
        if (cached := self._cache.pop(topic, None)) is not None:
            self._cached_receivers -= len(cached[1])

    def _note_change(self, filter_: str) -> None:
        if len(self._changed_in) >= _MAX_CHANGED:
            self._cache.clear()
            self._cached_receivers = 0
            self._changed, self._changed_in = self._matcher.index(), {}
            return
        self._version += 1
        self._changed.add(filter_, filter_)
        self._changed_in[filter_] = self._version
