"""Names and filters as one function."""

from __future__ import annotations

from dws_core._topics.trie import TrieIndex
from dws_core._topics.wanted import WantedMatch, joined


def test_names_and_filters_are_wanted() -> None:
    wanted = WantedMatch({"$all", "a"}, {"b/+", "#"}, TrieIndex)
    assert [wanted(topic) for topic in ("$all", "a", "b/1", "c")] == [True] * 4
    assert not wanted("$conn/x")
    assert not WantedMatch({"a"}, {"b/+"}, TrieIndex)("b")


def test_joined_is_union() -> None:
    one, two = WantedMatch({"a"}, {"b/+"}, TrieIndex), WantedMatch({"c"}, {"d/#"}, TrieIndex)
    union = joined((one, two), {"e"})
    assert (union.names, union.filters) == ({"a", "c", "e"}, {"b/+", "d/#"})
    assert all(union(topic) for topic in ("a", "b/1", "c", "d", "e"))
    assert not union("b")
