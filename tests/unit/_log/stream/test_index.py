from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.records import GapReason, Offset, ReadSpan, WantedTopics
from dws_core._log.stream.index import Entry, TopicIndex, kept

LATER = 10**9


def _span(since: int, until: int, topics: WantedTopics, limit: int = 100) -> ReadSpan:
    return ReadSpan(partition=0, epoch="e", since=since, until=until, topics=topics, limit=limit, max_bytes=1000)


def _index(*records: tuple[str, int], size: int = 100, max_entries: int = 100) -> TopicIndex:
    index = TopicIndex(0, max_entries=max_entries)
    for topic, offset in records:
        index.add(topic, Entry(offset, LATER, size))
    return index


def test_read_selects_the_wanted_topics_in_order() -> None:
    index = _index(("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5))
    assert index.select(_span(0, 5, ["b", "a", "missing"]), 0) == [1, 2, 3, 5]
    assert index.select(_span(1, 4, ["b", "a"]), 0) == [2, 3]


def test_read_selects_by_function() -> None:
    index = _index(("a", 1), ("b", 2), ("c", 3), ("a", 4))
    assert index.select(_span(1, 9, lambda topic: topic in "ab"), 0) == [2, 4]
    assert index.select(_span(4, 9, lambda topic: True), 0) == []


def test_function_is_called_once_for_each_topic() -> None:
    asked: list[str] = []
    index = _index(("a", 1), ("b", 2), ("a", 3), ("b", 4))
    index.select(_span(0, 9, lambda topic: bool(asked.append(topic))), 0)
    assert sorted(asked) == ["a", "b"]


def test_history_size_and_ttl_apply() -> None:
    index = TopicIndex(0)
    for offset in (1, 2, 3):
        index.add("t", Entry(offset, 1000, 2))
    assert index.select(_span(1, 3, ["t"]), 999) == [2, 3]
    assert index.select(_span(0, 3, ["t"]), 999) is GapReason.TRIMMED, "three records, and two are kept"
    assert index.select(_span(1, 3, ["t"]), 1000) is GapReason.TRIMMED, "they have expired"
    assert index.select(_span(3, 3, ["t"]), 1000) == []


def test_records_after_the_span_count_for_the_size() -> None:
    newest_first = [Entry(offset, LATER, 2) for offset in (4, 3, 2)]
    assert kept(newest_first[1:], 3, 0) == [3, 2]
    assert kept(newest_first, 3, 0) is None
    assert kept(newest_first, 1, 0) == [], "nothing of them is wanted"


def test_read_over_limit_is_too_many() -> None:
    index = _index(("a", 1), ("a", 2), ("b", 3))
    assert index.select(_span(0, 9, ["a", "b"], limit=3), 0) == [1, 2, 3]
    assert index.select(_span(0, 9, ["a", "b"], limit=2), 0) is GapReason.TOO_MANY


def test_oldest_entries_are_dropped() -> None:
    index = _index(("a", 1), ("b", 2), ("a", 3), ("a", 4), max_entries=3)
    assert (len(index), index.lo) == (3, 1)
    index.add("c", Entry(5, LATER, 1))
    assert (len(index), index.lo) == (3, 2)
    assert index.select(_span(2, 9, lambda topic: True), 0) == [3, 4, 5]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 20)), max_size=30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sets(st.sampled_from("abc")),
    st.integers(0, 20),
    st.booleans(),
)
def test_index_agrees_with_a_plain_list(
    records: list[tuple[str, int, int]], since: int, until: int, topics: set[str], now: int, by_function: bool
) -> None:
    index = TopicIndex(0)
    for offset, (topic, size, expires) in enumerate(records, 1):
        index.add(topic, Entry(offset, expires, size))
    wanted: WantedTopics = topics.__contains__ if by_function else topics
    assert index.select(_span(since, until, wanted), now) == _expected(records, since, until, topics, now)


def _expected(
    records: list[tuple[str, int, int]], since: int, until: int, topics: Collection[str], now: int
) -> list[Offset] | GapReason:
    found: list[Offset] = []
    for topic in topics:
        newer = [(offset, *r[1:]) for offset, r in enumerate(records, 1) if r[0] == topic and offset > since]
        wanted = [(offset, expires) for offset, _, expires in newer if offset <= until]
        if wanted and (len(newer) > newer[-1][1] or min(expires for _, expires in wanted) <= now):
            return GapReason.TRIMMED
        found += [offset for offset, _ in wanted]
    return sorted(found)
