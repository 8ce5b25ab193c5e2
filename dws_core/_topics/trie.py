"""An index of filters: exact ones in a dict, wildcards in a trie of levels."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from dws_core._topics.filters import check_filter, check_topic, has_wildcard, matches_filter

R = TypeVar("R", bound=Hashable)


class _Node(Generic[R]):
    __slots__ = ("children", "receivers")

    def __init__(self) -> None:
        self.children: dict[str, _Node[R]] = {}
        self.receivers: dict[R, None] = {}


class TrieIndex(Generic[R]):
    """Filters of MQTT 5.0 §4.7 and their receivers.

    A lookup visits the nodes that the topic's levels, `+` and `#` lead to: at most the filters that can match.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[R, None]] = {}
        self._root: _Node[R] = _Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, filter_: str, receiver: R) -> bool:
        """Add a valid filter for a receiver; False: it was there."""
        receivers = self._wild(filter_) if has_wildcard(filter_) else self._exact.setdefault(filter_, {})
        if receiver in receivers:
            return False
        receivers[receiver] = None
        self._size += 1
        return True

    def discard(self, filter_: str, receiver: R) -> bool:
        """Remove a filter of a receiver; False: it was not there. What becomes empty is freed."""
        found = (
            self._discard_wild(filter_, receiver) if has_wildcard(filter_) else self._discard_exact(filter_, receiver)
        )
        self._size -= found
        return found

    def lookup(self, topic: str) -> set[R]:
        """Return the receivers of all matching filters, each once."""
        found = set(self._exact.get(topic, ()))
        if not self._root.children:
            return found
        levels = topic.split("/")
        nodes = [self._root]
        for depth, level in enumerate(levels):
            wild = depth > 0 or topic[:1] != "$"
            following: list[_Node[R]] = []
            for node in nodes:
                children = node.children
                if wild and (rest := children.get("#")) is not None:
                    found.update(rest.receivers)
                if (child := children.get(level)) is not None:
                    following.append(child)
                if wild and (child := children.get("+")) is not None:
                    following.append(child)
            nodes = following
            if not nodes:
                return found
        for node in nodes:
            found.update(node.receivers)
            if (rest := node.children.get("#")) is not None:  # `a/#` matches `a`
                found.update(rest.receivers)
        return found

    def _wild(self, filter_: str) -> dict[R, None]:
        node = self._root
        for level in filter_.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        return node.receivers

    def _discard_exact(self, filter_: str, receiver: R) -> bool:
        receivers = self._exact.get(filter_)
        if receivers is None or receiver not in receivers:
            return False
        del receivers[receiver]
        if not receivers:
            del self._exact[filter_]
        return True

    def _discard_wild(self, filter_: str, receiver: R) -> bool:
        node = self._root
        path: list[tuple[_Node[R], str]] = []
        for level in filter_.split("/"):
            child = node.children.get(level)
            if child is None:
                return False
            path.append((node, level))
            node = child
        if receiver not in node.receivers:
            return False
        del node.receivers[receiver]
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.receivers or child.children:
                break
            del parent.children[level]
        return True


class MqttMatcher:
    """The built-in topic language `mqtt`: MQTT 5.0 §4.7."""

    def check_topic(self, topic: str) -> str:
        """Return the topic if one may publish to it."""
        return check_topic(topic)

    def check_filter(self, filter_: str) -> str:
        """Return the filter if one may subscribe to it."""
        return check_filter(filter_)

    def is_exact(self, filter_: str) -> bool:
        """Say whether a valid filter matches only the topic of the same text."""
        return not has_wildcard(filter_)

    def matches(self, topic: str, filter_: str) -> bool:
        """Say whether a valid filter matches a valid topic."""
        return matches_filter(topic, filter_)

    def index(self) -> TrieIndex[object]:
        """Return a new, empty index."""
        return TrieIndex()
