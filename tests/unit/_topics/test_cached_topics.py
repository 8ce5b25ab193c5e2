"""The index of a cache's topics."""

from __future__ import annotations

from dws_core._topics.cached_topics import CachedTopics
from dws_core._topics.trie import TrieIndex


def every() -> TrieIndex[str]:
    index: TrieIndex[str] = TrieIndex()
    index.add("#", "x")
    return index


def test_index_is_built_in_steps() -> None:
    topics = {"a": 1, "b": 2, "c": 3, "$all": 4}
    index = CachedTopics(topics.keys(), now=0.0)
    assert index.build(3)
    assert not index.build(3)
    assert set(index.matching(every(), now=5.0)) == {"a", "b", "c"}
    assert index.used == 5.0


def test_topics_that_change_during_build_are_known() -> None:
    topics = {"a": 1, "b": 2, "c": 3}
    index = CachedTopics(topics.keys(), now=0.0)
    index.build(1)
    for gone in ("a", "c"):
        del topics[gone]
        index.discard(gone)
    topics["d"] = 4
    index.add("d")
    index.add("$conn/x")
    assert set(index.matching(every(), now=0.0)) == {"b", "d"}
