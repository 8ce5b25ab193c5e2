"""Filters in bit sets give the same results as the naive matcher, and cost little."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._topics import wide
from dws_core._topics.filters import matches_filter
from dws_core._topics.trie import TrieIndex
from dws_core._topics.wide import WideFilters, is_wide

LEVELS = st.sampled_from(["a", "b", "$x", ""])
FILTERS = st.builds(
    lambda levels, rest: "/".join(levels) + rest,
    st.lists(LEVELS | st.just("+"), min_size=1, max_size=5),
    st.sampled_from(["", "/#"]),
)
TOPICS = st.lists(LEVELS, min_size=1, max_size=6).map("/".join)


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("+/+/3/4/5/6/7/8/9", True),
        ("+/2/3/4/5/6/7/+/9/#", True),
        ("+/+/3/4/5/6/7/8", False),
        ("+/2/3/4/5/6/7/8/9/#", False),
        ("+/+/#", False),
    ],
)
def test_long_filters_with_several_wildcards_are_wide(filter_: str, expected: bool) -> None:
    assert is_wide(filter_) is expected


@given(st.lists(st.tuples(FILTERS, st.integers(0, 2), st.booleans()), max_size=20), TOPICS)
def test_result_equals_naive_matching(changes: list[tuple[str, int, bool]], topic: str) -> None:
    """With blocks that are filled, emptied and filled again."""
    known: set[tuple[str, int]] = set()
    index: WideFilters[int] = WideFilters()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "_BLOCK", 3)
        for filter_, receiver, adding in changes:
            if adding:
                index.receivers(filter_)[receiver] = None
                known.add((filter_, receiver))
            else:
                assert index.discard(filter_, receiver) is ((filter_, receiver) in known)
                known.discard((filter_, receiver))
    expected = sorted((f, r) for f, r in known if matches_filter(topic, f))
    assert sorted(r for receivers in index.matching(topic) for r in receivers) == sorted(r for _, r in expected)
    assert set(index) == {filter_ for filter_, _ in known}
    assert len(index) == len(set(index))


def test_removed_filters_leave_nothing() -> None:
    index: WideFilters[int] = WideFilters()
    filters = [f"{number}/+/+/x" for number in range(600)]
    for filter_ in filters:
        index.receivers(filter_)[1] = None
    kept = filters.pop()
    for filter_ in filters:
        assert index.discard(filter_, 1)
    (block,) = index._blocks
    assert [sorted(found) for found in block.levels] == [["599"], ["+"], ["+"], ["x"]]
    assert list(block.ends) == [4]
    assert index.discard(kept, 1)
    assert not index._blocks
    assert not index._open
    assert not len(index)


def deep_filters(count: int) -> list[str]:
    """Return filters of 32 levels that match one topic, and differ in the places of their wildcards."""
    places = itertools.combinations(range(32), 5)
    return ["/".join("+" if n in some else "a" for n in range(32)) for some in itertools.islice(places, count)]


@pytest.mark.parametrize("end", ["", "/other"], ids=["matching", "not matching"])
def test_many_deep_filters_cost_few_operations(end: str) -> None:
    """In a trie, each of them costs 32 nodes."""
    index: TrieIndex[int] = TrieIndex()
    for filter_ in deep_filters(2000):
        index.add(filter_ if not end else filter_[:-2] + end, 1)
    lines = 0

    def count(*_: object) -> object:
        nonlocal lines
        lines += 1
        return count

    sys.settrace(count)
    try:
        found = index.lookup("/".join("a" * 32))
    finally:
        sys.settrace(None)
    assert set(found) == ({1} if not end else set())
    assert lines < 2000 * (12 if not end else 2)
