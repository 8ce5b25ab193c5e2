"""The topics that filters match, compared with matching each topic by itself."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st
from unit._topics.naive import filters, naive, topics

from dws_core._topics.filters import has_wildcard
from dws_core._topics.tree import TopicTree
from dws_core._topics.trie import TrieIndex


def index_of(*wanted: str) -> TrieIndex[str]:
    index: TrieIndex[str] = TrieIndex()
    for filter_ in wanted:
        index.add(filter_, filter_)
    return index


def tree_of(*names: str) -> TopicTree:
    tree = TopicTree()
    for name in names:
        tree.add(name)
    return tree


@given(st.lists(topics, max_size=12), st.lists(topics, max_size=4), st.lists(filters.filter(has_wildcard), max_size=5))
def test_tree_agrees_with_naive_matching(added: list[str], removed: list[str], wanted: list[str]) -> None:
    tree = tree_of(*added, *removed)
    for topic in removed:
        tree.discard(topic)
    left = set(added) - set(removed)
    assert len(tree) == len(left)
    found = list(tree.matching(index_of(*wanted)))
    assert len(found) == len(set(found))
    assert set(found) == {topic for topic in left if any(naive(topic, filter_) for filter_ in wanted)}


def test_empty_levels_are_freed() -> None:
    tree = tree_of("a/b/c", "a", "x")
    for topic in ("a/b/c", "a", "a/b", "x", "nothing"):
        tree.discard(topic)
    assert (len(tree), len(tree._root)) == (0, 0)


def test_cost_depends_on_topics_found() -> None:
    """Compare the number of Python calls, which does not depend on the speed of the machine."""
    index = index_of(*(f"user/{number}/+/x" for number in range(60)), *(f"no/+/{number}" for number in range(60)))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def cost(topics: int) -> int:
        nonlocal calls
        tree, calls = tree_of(*(f"user/{number}/inbox/x" for number in range(topics))), 0
        sys.setprofile(count)
        try:
            found = list(tree.matching(index))
        finally:
            sys.setprofile(None)
        assert len(found) == 60
        return calls

    assert cost(5_000) < 2 * cost(100)


def test_level_without_filter_is_left_out() -> None:
    """Also if there are more filters than topics at a level."""
    assert list(tree_of("x/1", "b/1").matching(index_of("a/+", "b/+", "c/+"))) == ["b/1"]
