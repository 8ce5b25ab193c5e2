"""What a topic language is to the core: the two protocols that the author of a matcher implements.

Both are pure: no event loop, no clock, no I/O, nothing that blocks. The core calls them from one thread, that of the
event loop, and expects the named exceptions and no others. `dws_core.testing.TopicMatcherConformance` checks an
implementation.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar, runtime_checkable

R = TypeVar("R", bound=Hashable)


@runtime_checkable
class TopicIndex(Protocol[R]):
    """Filters and who wants what matches them: pairs of a filter and a receiver.

    The core keeps one for each node, made by `TopicMatcher.index`, and passes only filters and topics that the
    matcher accepts. Receivers are hashable and otherwise unknown: an index keeps them and hands them back.
    """

    def add(self, filter_: str, receiver: R) -> bool:
        """Add a valid filter for a receiver; False: that pair was there, and nothing changed.

        Called for each subscription. Must not slow down with the number of receivers of the same filter.
        """
        ...

    def discard(self, filter_: str, receiver: R) -> bool:
        """Remove a filter of a receiver; False: that pair was not there. What becomes empty must be freed.

        The other filters of the receiver stay, even those that match the same topics.
        """
        ...

    def lookup(self, topic: str) -> AbstractSet[R]:
        """Return the receivers that have a matching filter, each once; empty where there is none.

        Called again for a topic only after a change of subscriptions or when the core has forgotten the answer. The
        returned set must not change afterwards. Its order is the order of delivery; a stable one is kind, none is
        required.
        """
        ...

    def __len__(self) -> int:
        """Return the number of (filter, receiver) pairs."""
        ...


@runtime_checkable
class TopicMatcher(Protocol):
    """A language of topics and filters, chosen by name (`mqtt` is built in). Without state of its own."""

    def check_topic(self, topic: str) -> str:
        """Return the topic, unchanged, if one may publish to it. Called for each publish.

        Topics that begin with `$` belong to the node; the core refuses them itself.

        Raises:
            InvalidTopic: It breaks a rule; says which, and at which position. Nothing else, whatever the text.
        """
        ...

    def check_filter(self, filter_: str) -> str:
        """Return the filter, unchanged, if one may subscribe to it. Called before `TopicIndex.add`.

        Raises:
            InvalidFilter: It breaks a rule; says which, and at which position. Nothing else, whatever the text.
        """
        ...

    def is_exact(self, filter_: str) -> bool:
        """Say whether a valid filter matches the topic of the same text and no other.

        True lets the core remember more: the filter's coming and going touches one topic only. False is always safe.
        """
        ...

    def matches(self, topic: str, filter_: str) -> bool:
        """Say whether a valid filter matches a valid topic: the truth that the index must agree with."""
        ...

    def index(self) -> TopicIndex[object]:
        """Return a new, empty index. Called once for each node."""
        ...
