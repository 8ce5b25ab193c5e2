"""An index of filters: exact filters in a dict, filters with wildcards in a trie of levels, or in bit sets."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from dws_core._topics.filters import check_filter, check_topic, has_wildcard, matches_filter
from dws_core._topics.wide import WideFilters, is_wide

R = TypeVar("R", bound=Hashable)


class TrieNode(dict[str, "TrieNode[R]"], Generic[R]):
    """The children by level, and the receivers of the filter that ends here. One object saves memory."""

    __slots__ = ("receivers",)

    def __init__(self) -> None:
        super().__init__()
        self.receivers: dict[R, None] | None = None


class TrieIndex(Generic[R]):
    """Filters of MQTT 5.0 §4.7 and their receivers.

    A lookup visits, level by level, only the nodes that the topic's levels, `+` and `#` lead to. Exact filters cost one
    dict lookup, independent of their number. No method recurses. Empty nodes are freed.

    The trie has only filters of at most 8 levels, or with at most one `+`. So a topic leads to at most 256 and 32 nodes
    of a level, however many filters there are. The others are in bit sets.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[R, None]] = {}
        self._trie: TrieNode[R] = TrieNode()
        self._wide: WideFilters[R] = WideFilters()
        self._whole: TrieNode[R] | None = None  # a trie that also has the wide filters, if it was needed
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def wildcards(self) -> TrieNode[R]:
        """Root of a trie of all filters with wildcards. Read it only."""
        if not self._wide:
            return self._trie
        if self._whole is None:
            self._whole = _copy(self._trie)
            for filter_ in self._wide:
                _receivers(self._whole, filter_).update(self._wide.receivers(filter_))
        return self._whole

    def add(self, filter_: str, receiver: R) -> bool:
        """Add a valid filter for a receiver. Return False if the index has that pair already."""
        self._whole = None
        if not has_wildcard(filter_):
            receivers = self._literal(filter_)
        elif is_wide(filter_):
            receivers = self._wide.receivers(filter_)
        else:
            receivers = _receivers(self._trie, filter_)
        if receiver in receivers:
            return False
        receivers[receiver] = None
        self._size += 1
        return True

    def discard(self, filter_: str, receiver: R) -> bool:
        """Remove a filter of a receiver. Return False if the index does not have that pair."""
        self._whole = None
        discard = self._discard_exact
        if has_wildcard(filter_):
            discard = self._wide.discard if is_wide(filter_) else self._discard_wild
        if not discard(filter_, receiver):
            return False
        self._size -= 1
        if not self._size:  # a dict does not shrink until it is cleared
            self._exact.clear()
            self._trie.clear()
        return True

    def lookup(self, topic: str) -> AbstractSet[R]:
        """Return the receivers of all filters that match a valid topic, each once.

        The order is stable: receivers of the exact filter come first, and receivers of one filter in the order they
        were added. Later changes of the index do not change the set.
        """
        found = dict(self._exact.get(topic, ()))
        if self._trie:
            for receivers in self._matching(topic):
                found.update(receivers)
        if self._wide:
            for receivers in self._wide.matching(topic):
                found.update(receivers)
        return found.keys()

    def _matching(self, topic: str) -> list[dict[R, None]]:
        first, *levels = topic.split("/")
        nodes, ends = self._start(first)
        for level in levels:
            following: list[TrieNode[R]] = []
            for node in nodes:
                if (child := node.get("#")) is not None:
                    ends.append(child)
                if (child := node.get(level)) is not None:
                    following.append(child)
                if (child := node.get("+")) is not None:
                    following.append(child)
            nodes = following
        for node in nodes:
            ends.append(node)
            if (child := node.get("#")) is not None:  # `a/#` matches `a`
                ends.append(child)
        return [node.receivers for node in ends if node.receivers]

    def _start(self, first: str) -> tuple[list[TrieNode[R]], list[TrieNode[R]]]:
        """Return the nodes that the first level leads to, and the nodes at which a filter ends."""
        node, one, rest = (self._trie.get(level) for level in (first, "+", "#"))
        if first[:1] == "$":  # MQTT 5.0 §4.7.2: a wildcard at the first level does not match such a topic
            one = rest = None
        return [child for child in (node, one) if child is not None], [rest] if rest is not None else []

    def _literal(self, filter_: str) -> dict[R, None]:
        receivers = self._exact.get(filter_)
        if receivers is None:
            receivers = self._exact[filter_] = {}
        return receivers

    def _discard_exact(self, filter_: str, receiver: R) -> bool:
        receivers = self._exact.get(filter_)
        if receivers is None or receiver not in receivers:
            return False
        del receivers[receiver]
        if not receivers:
            del self._exact[filter_]
        return True

    def _discard_wild(self, filter_: str, receiver: R) -> bool:
        node = self._trie
        path: list[tuple[TrieNode[R], str]] = []
        for level in filter_.split("/"):
            child = node.get(level)
            if child is None:
                return False
            path.append((node, level))
            node = child
        if not node.receivers or receiver not in node.receivers:
            return False
        del node.receivers[receiver]
        if not node.receivers:
            node.receivers = None
            _prune(path)
        return True


def _receivers(node: TrieNode[R], filter_: str) -> dict[R, None]:
    """Return the receivers of a filter, which is added to the trie if necessary."""
    for level in filter_.split("/"):
        child = node.get(level)
        if child is None:
            child = node[level] = TrieNode()
        node = child
    if node.receivers is None:
        node.receivers = {}
    return node.receivers


def _copy(root: TrieNode[R]) -> TrieNode[R]:
    """Return a copy of a trie."""
    copied: TrieNode[R] = TrieNode()
    waiting = [(root, copied)]
    while waiting:
        node, target = waiting.pop()
        target.receivers = None if node.receivers is None else dict(node.receivers)
        for level, child in node.items():
            target[level] = TrieNode()
            waiting.append((child, target[level]))
    return copied


def _prune(path: list[tuple[TrieNode[R], str]]) -> None:
    """Remove the nodes at the end of a path that have neither receivers nor children."""
    for parent, level in reversed(path):
        child = parent[level]
        if child or child.receivers:
            return
        del parent[level]


class MqttMatcher:
    """The built-in topic language `mqtt`: MQTT 5.0 §4.7, implemented in `filters`."""

    def check_topic(self, topic: str) -> str:
        """Return the topic if it is valid.

        Raises:
            InvalidTopic: The topic breaks a rule.
        """
        return check_topic(topic)

    def check_filter(self, filter_: str) -> str:
        """Return the filter if it is valid.

        Raises:
            InvalidFilter: The filter breaks a rule.
        """
        return check_filter(filter_)

    def is_exact(self, filter_: str) -> bool:
        """Return whether a valid filter matches only the topic with the same text."""
        return not has_wildcard(filter_)

    def matches(self, topic: str, filter_: str) -> bool:
        """Return whether a valid filter matches a valid topic."""
        return matches_filter(topic, filter_)

    def index(self) -> TrieIndex[object]:
        """Return a new, empty index."""
        return TrieIndex()
