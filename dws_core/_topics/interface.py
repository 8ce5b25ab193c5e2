"""The contract of a topic language: the two protocols that the author of a matcher implements.

Implementations are pure: no event loop, no clock, no I/O, no blocking. The core calls them only on the thread of the
event loop. They may raise only the documented exceptions. `dws_core.testing.TopicMatcherConformance` checks an
implementation.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar, runtime_checkable

R = TypeVar("R", bound=Hashable)


@runtime_checkable
class TopicIndex(Protocol[R]):
    """An index of subscriptions, which are pairs of a filter and a receiver.

    Each node has one index, made by `TopicMatcher.index`. The core passes only filters and topics that the matcher
    accepts. Receivers are hashable. The index stores and returns them, and uses no other feature of them.
    """

    def add(self, filter_: str, receiver: R) -> bool:
        """Add a valid filter for a receiver. Return False, and change nothing, if the index has that pair.

        Called for each subscription. Must not slow down with the number of receivers of the same filter.
        """
        ...

    def discard(self, filter_: str, receiver: R) -> bool:
        """Remove a filter of a receiver. Return False if the index does not have that pair.

        The other filters of the receiver stay, even those that match the same topics. Free all memory of a filter that
        has no receivers left.
        """
        ...

    def lookup(self, topic: str) -> AbstractSet[R]:
        """Return the receivers that have a matching filter, each once. The set is empty if there are none.

        The core caches the result. It repeats the call for a topic only after a subscription has changed or after the
        cache has evicted the topic. The returned set must not change later. Messages are delivered in its order. A
        stable order is recommended, but not required.
        """
        ...

    def __len__(self) -> int:
        """Return the number of (filter, receiver) pairs."""
        ...


@runtime_checkable
class TopicMatcher(Protocol):
    """A language of topics and filters, chosen by name (`mqtt` is built in). It has no state."""

    def check_topic(self, topic: str) -> str:
        """Return the topic, unchanged, if it is valid. Called for each publish.

        Topics that begin with `$` are reserved for the node. The core refuses them, the matcher need not.

        Raises:
            InvalidTopic: The topic breaks a rule. The error names the rule and the position. No text may raise any
                other exception.
        """
        ...

    def check_filter(self, filter_: str) -> str:
        """Return the filter, unchanged, if it is valid. Called before `TopicIndex.add`.

        Raises:
            InvalidFilter: The filter breaks a rule. The error names the rule and the position. No text may raise any
                other exception.
        """
        ...

    def is_exact(self, filter_: str) -> bool:
        """Return whether a valid filter matches only the topic with the same text.

        If True, adding or removing the filter invalidates the cached receivers of that topic only. If False, each
        cached topic is compared with the filter when it is used again. False is always safe.
        """
        ...

    def matches(self, topic: str, filter_: str) -> bool:
        """Return whether a valid filter matches a valid topic. The index must agree with this method."""
        ...

    def index(self) -> TopicIndex[object]:
        """Return a new, empty index. Called for each node, and for each request that resumes."""
        ...
