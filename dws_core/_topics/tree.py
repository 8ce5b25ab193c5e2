"""Topics by level, to find those that a set of filters matches at a cost that depends on what is found."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar

from dws_core._topics.filters import is_reserved
from dws_core._topics.trie import TrieIndex, TrieNode

R = TypeVar("R", bound=Hashable)


class _Level(dict[str, "_Level"]):
    """The next levels of the topics that begin alike, and the topic that ends here."""

    __slots__ = ("topic",)

    def __init__(self) -> None:
        super().__init__()
        self.topic: str | None = None


class TopicTree:
    """A set of valid topics.

    `TrieIndex` finds the filters that match a topic. This class finds the topics that filters match: it walks through the
    levels of the topics and of the filters at the same time, so it visits only the levels that both have.
    """

    def __init__(self) -> None:
        self._root = _Level()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, topic: str) -> None:
        """Add a topic. A topic that is in the set is no error."""
        level = self._root
        for name in topic.split("/"):
            following = level.get(name)
            if following is None:
                following = level[name] = _Level()
            level = following
        self._size += level.topic is None
        level.topic = topic

    def discard(self, topic: str) -> None:
        """Remove a topic. A topic that is not in the set is no error."""
        level, path = self._root, []
        for name in topic.split("/"):
            following = level.get(name)
            if following is None:
                return
            path.append((level, name))
            level = following
        self._size -= level.topic is not None
        level.topic = None
        for parent, name in reversed(path):
            if parent[name] or parent[name].topic is not None:
                return
            del parent[name]

    def matching(self, filters: TrieIndex[Any]) -> Iterator[str]:
        """Yield the topics that match at least one filter with a wildcard, each once. Change nothing in the meantime."""
        root = filters.wildcards
        for name, level, wanted in _next_levels(self._root, [root]):
            if is_reserved(name):  # MQTT 5.0 §4.7.2: a wildcard at the first level does not match it
                yield from _matching(level, [root[name]] if name in root else [])
            elif "#" not in root:
                yield from _matching(level, wanted)
        if "#" in root:
            yield from (topic for name, level in self._root.items() if not is_reserved(name) for topic in _all(level))


def _matching(level: _Level, wanted: list[TrieNode[Any]]) -> Iterator[str]:
    """Yield the topics below a level that the filters below the nodes match."""
    waiting = [(level, wanted)]
    while waiting:
        level, wanted = waiting.pop()
        if any("#" in node for node in wanted):  # also matches the level itself
            yield from _all(level)
            continue
        if level.topic is not None and any(node.receivers for node in wanted):
            yield level.topic
        waiting.extend((following, nodes) for _, following, nodes in _next_levels(level, wanted))


def _next_levels(level: _Level, wanted: list[TrieNode[Any]]) -> Iterable[tuple[str, _Level, list[TrieNode[Any]]]]:
    """Return the next levels that one of the nodes leads to, with the nodes that it leads to."""
    pluses = [node["+"] for node in wanted if "+" in node]
    if pluses or sum(map(len, wanted)) > len(level):
        names: Iterable[str] = level
    else:
        names = {name for node in wanted for name in node if name in level}
    found = []
    for name in names:
        nodes = pluses + [node[name] for node in wanted if name in node]
        if nodes:
            found.append((name, level[name], nodes))
    return found


def _all(level: _Level) -> Iterator[str]:
    waiting = [level]
    while waiting:
        level = waiting.pop()
        if level.topic is not None:
            yield level.topic
        waiting.extend(level.values())
