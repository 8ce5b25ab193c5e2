"""The index of filters, and the built-in matcher."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit._topics.naive import filters, naive, topics

from dws_core._errors import InvalidFilter, InvalidTopic
from dws_core._topics.filters import MAX_LEVELS, MAX_TOPIC_BYTES
from dws_core._topics.interface import TopicIndex, TopicMatcher
from dws_core._topics.trie import MqttMatcher, TrieIndex

KINDS = ["a", "a/b", "+", "#", "a/+", "a/#", "+/b", "a/+/c", "$x/+", "$x/#"]


@pytest.fixture
def index() -> TrieIndex[str]:
    return TrieIndex()


def is_empty(index: TrieIndex[str]) -> bool:
    return not index._exact and not index.wildcards


@pytest.mark.parametrize("filter_", KINDS)
def test_add_and_discard_return_whether_index_changed(index: TrieIndex[str], filter_: str) -> None:
    assert [index.discard(filter_, "x"), index.add(filter_, "x"), index.add(filter_, "x")] == [False, True, False]
    assert len(index) == 1
    assert [index.discard(filter_, "y"), index.discard(filter_, "x"), index.discard(filter_, "x")] == [
        False,
        True,
        False,
    ]
    assert len(index) == 0
    assert is_empty(index)


@pytest.mark.parametrize("filter_", KINDS)
def test_length_counts_filter_receiver_pairs(index: TrieIndex[str], filter_: str) -> None:
    for receiver in "xyz":
        index.add(filter_, receiver)
    index.add("$other/+", "x")
    assert len(index) == 4
    index.discard(filter_, "y")
    assert len(index) == 3
    assert index.lookup("$other/1") == {"x"}


@pytest.mark.parametrize("missing", ["a", "a/b/c", "a/b/+", "+/+", "#", "a/+/c/+"])
def test_discard_of_unknown_filter_changes_nothing(index: TrieIndex[str], missing: str) -> None:
    index.add("a/b", "x")
    index.add("a/+/c", "x")
    assert not index.discard(missing, "x")
    assert len(index) == 2
    assert index.lookup("a/b") == index.lookup("a/1/c") == {"x"}


def test_discard_keeps_shorter_and_longer_filters(index: TrieIndex[str]) -> None:
    for filter_ in ("+/a", "+/a/b", "+/a/b/c", "+/a/#"):
        index.add(filter_, filter_)
    index.discard("+/a/b", "+/a/b")
    assert index.lookup("1/a/b") == {"+/a/#"}
    assert index.lookup("1/a/b/c") == {"+/a/b/c", "+/a/#"}
    index.discard("+/a/b/c", "+/a/b/c")
    assert index.lookup("1/a") == {"+/a", "+/a/#"}
    assert not index.wildcards["+"]["a"].get("b"), "the branch without filters is gone"


@pytest.mark.parametrize("filter_", KINDS)
def test_discard_removes_all_nodes_of_filter(index: TrieIndex[str], filter_: str) -> None:
    index.add("kept", "x")
    index.add("kept/+", "x")
    index.add(filter_, "y")
    index.discard(filter_, "y")
    assert list(index._exact) == list(index.wildcards) == ["kept"]


def test_filter_stays_when_longer_one_is_discarded(index: TrieIndex[str]) -> None:
    index.add("+/a", "x")
    index.add("+/a/b", "y")
    index.discard("+/a/b", "y")
    assert index.lookup("1/a") == {"x"}


@pytest.mark.parametrize("level", ["+", "#", "a"])
def test_lookup_agrees_with_naive_matcher_per_level(index: TrieIndex[str], level: str) -> None:
    filter_ = f"+/{level}"
    index.add(filter_, "x")
    for topic in ("a", "a/a", "a/b", "a/a/a", "$x/a", "/", "/a"):
        assert (index.lookup(topic) == {"x"}) is naive(topic, filter_), topic


def test_multi_level_wildcard_matches_parent_and_children(index: TrieIndex[str]) -> None:
    index.add("a/#", "x")
    index.add("a/b/#", "y")
    assert index.lookup("a") == {"x"}
    assert index.lookup("a/b") == index.lookup("a/b/c/d") == {"x", "y"}
    assert index.lookup("ab") == index.lookup("b/a") == set()


def test_leading_wildcard_skips_node_topics(index: TrieIndex[str]) -> None:
    for filter_ in ("#", "+", "+/#", "+/1", "$conn/+", "$conn/#", "$conn/1"):
        index.add(filter_, filter_)
    assert index.lookup("$conn/1") == {"$conn/+", "$conn/#", "$conn/1"}
    assert index.lookup("$conn") == {"$conn/#"}
    assert index.lookup("conn/1") == {"#", "+/#", "+/1"}


def test_receiver_is_returned_once_for_many_filters(index: TrieIndex[str]) -> None:
    for filter_ in ("a/b", "a/+", "+/b", "a/#", "#"):
        index.add(filter_, "x")
    assert list(index.lookup("a/b")) == ["x"]


def test_receivers_are_returned_in_order(index: TrieIndex[str]) -> None:
    names = [f"receiver-{number}" for number in range(50)]
    for name in names:
        index.add("a/+", name)
        index.add("a/b", name)
    index.add("a/b", "last")
    assert list(index.lookup("a/b")) == [*names, "last"]
    assert list(index.lookup("a/c")) == names


@pytest.mark.parametrize("filter_", ["a", "+"])
def test_answer_does_not_change_later(index: TrieIndex[str], filter_: str) -> None:
    index.add(filter_, "x")
    answer = index.lookup("a")
    index.add(filter_, "y")
    index.discard(filter_, "x")
    assert answer == {"x"}


def test_extreme_topics_are_found(index: TrieIndex[str]) -> None:
    deep = "/".join("a" * MAX_LEVELS)
    odd = ["x" * MAX_TOPIC_BYTES, "/" * (MAX_LEVELS - 1), deep, "日本/😀", " ", "a\tb/\u200b", "$/$/$"]
    for topic in odd:
        index.add(topic, topic)
        index.add(f"{topic}/+", f"{topic}/+")
    assert [index.lookup(topic) for topic in odd] == [{topic} for topic in odd]
    assert [index.lookup(f"{topic}/1") for topic in odd] == [{f"{topic}/+"} for topic in odd]


def test_lookup_does_not_recurse(index: TrieIndex[str]) -> None:
    depth = 100_000
    filter_ = "/".join(["+"] * depth)
    index.add(filter_, "x")
    assert index.lookup("/".join("a" * depth)) == {"x"}
    assert index.discard(filter_, "x")
    assert is_empty(index)


def test_lookup_visits_only_matching_branches(index: TrieIndex[str]) -> None:
    for number in range(1000):
        index.add(f"room/{number}/+", "x")
    visited: list[str] = []

    class Spy(type(index.wildcards)):  # type: ignore[misc]  # the class is chosen at run time
        def get(self, key: str, default: object = None) -> object:
            visited.append(key)
            return super().get(key, default)

    rooms = index.wildcards["room"]
    spy = index.wildcards["room"] = Spy()
    spy.update(rooms)
    assert index.lookup("room/7/typing") == {"x"}
    assert sorted(visited) == ["#", "+", "7"]


@given(st.lists(st.tuples(filters, st.integers(0, 3)), max_size=30), st.lists(topics, min_size=1, max_size=6))
@settings(max_examples=300)
def test_index_agrees_with_naive_matcher(pairs: list[tuple[str, int]], wanted: list[str]) -> None:
    index: TrieIndex[int] = TrieIndex()
    for filter_, receiver in pairs:
        index.add(filter_, receiver)
    gone, kept = set(pairs[::3]), set(pairs) - set(pairs[::3])
    for filter_, receiver in gone:
        assert index.discard(filter_, receiver)
    assert len(index) == len(kept)
    for topic in wanted:
        assert index.lookup(topic) == {receiver for filter_, receiver in kept if naive(topic, filter_)}
    for filter_, receiver in kept:
        assert index.discard(filter_, receiver)
    assert not index._exact
    assert not index.wildcards


def test_discarded_filters_free_memory(index: TrieIndex[str]) -> None:
    shapes = ("room/{}", "room/{}/+/typing", "room/{}/#", "+/{}")
    many = [shape.format(number) for number in range(5_000) for shape in shapes]
    tracemalloc.start()
    try:
        for filter_ in many:
            index.add(filter_, "x")
        full = tracemalloc.get_traced_memory()[0]
        for filter_ in many:
            index.discard(filter_, "x")
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert full > 2_000_000, "the measurement sees the index"
    assert left < 20_000


def test_discarded_receivers_free_memory(index: TrieIndex[str]) -> None:
    """This also holds while a longer filter keeps the branch alive."""
    index.add("a/+/stays", "x")
    names = [f"receiver-{number}" for number in range(10_000)]
    tracemalloc.start()
    try:
        for name in names:
            index.add("a/+", name)
        for name in names:
            index.discard("a/+", name)
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert left < 10_000


def test_matcher_creates_independent_indexes() -> None:
    matcher: TopicMatcher = MqttMatcher()
    one, two = matcher.index(), matcher.index()
    assert isinstance(matcher, TopicMatcher)
    assert isinstance(one, TopicIndex)
    one.add("a", "x")
    assert (len(one), len(two)) == (1, 0)


def test_matcher_follows_mqtt_rules() -> None:
    matcher = MqttMatcher()
    assert matcher.check_topic("a/b") == "a/b"
    assert matcher.check_filter("a/+/#") == "a/+/#"
    assert matcher.matches("a", "a/#")
    assert not matcher.matches("$all", "#")
    with pytest.raises(InvalidTopic):
        matcher.check_topic("a/+")
    with pytest.raises(InvalidFilter):
        matcher.check_filter("a+")


@pytest.mark.parametrize(
    ("filter_", "exact"), [("a", True), ("$all", True), ("a/+", False), ("+/a", False), ("a/#", False)]
)
def test_matcher_detects_exact_filters(filter_: str, exact: bool) -> None:
    assert MqttMatcher().is_exact(filter_) is exact
