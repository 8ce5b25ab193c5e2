"""What a topic language is to the core. Pure: no event loop, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar, runtime_checkable

R = TypeVar("R", bound=Hashable)


@runtime_checkable
class TopicIndex(Protocol[R]):
    """Filters and who wants what matches them. One for each node; called on the event loop."""

    def add(self, filter_: str, receiver: R) -> bool:
        """Add a valid filter for a receiver; False: it was there."""
        ...

    def discard(self, filter_: str, receiver: R) -> bool:
        """Remove a filter of a receiver; False: it was not there."""
        ...

    def lookup(self, topic: str) -> AbstractSet[R]:
        """Return the receivers that have a matching filter, each once."""
        ...

    def __len__(self) -> int:
        """Return the number of (filter, receiver) pairs."""
        ...


@runtime_checkable
class TopicMatcher(Protocol):
    """A language of topics and filters, chosen by name."""

    def check_topic(self, topic: str) -> str:
        """Return the topic if one may publish to it.

        Raises:
            InvalidTopic: It breaks a rule; says which and where.
        """
        ...

    def check_filter(self, filter_: str) -> str:
        """Return the filter if one may subscribe to it.

        Raises:
            InvalidFilter: It breaks a rule; says which and where.
        """
        ...

    def is_exact(self, filter_: str) -> bool:
        """Say whether a valid filter matches only the topic of the same text; False is always safe."""
        ...

    def matches(self, topic: str, filter_: str) -> bool:
        """Say whether a valid filter matches a valid topic: the truth that `index` must agree with."""
        ...

    def index(self) -> TopicIndex[object]:
        """Return a new, empty index."""
        ...
