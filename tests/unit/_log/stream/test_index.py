from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.records import GapReason, Offset, ReadResult, ReadSpan, WantedTopics
from dws_core._log.stream.index import Entry, Selection, TopicIndex, last_lost

LATER = 10**9


def _span(since: int, until: int, topics: WantedTopics, limit: int = 100, max_bytes: int = 1000) -> ReadSpan:
    return ReadSpan(partition=0, epoch="e", since=since, until=until, topics=topics, limit=limit, max_bytes=max_bytes)


def _index(*records: tuple[str, int], size: int = 100, max_entries: int = 100, lo: int = 0) -> TopicIndex:
    index = TopicIndex(lo, max_entries=max_entries)
    for topic, offset in records:
        index.add([Entry(topic, offset, LATER, size, payload_bytes=10)])
    return index


def _select(
    index: TopicIndex, span: ReadSpan, now_ms: int = 0
) -> list[Offset] | tuple[GapReason | None, Offset | None]:
    selection = Selection(index, span, now_ms)
    for _ in selection.steps(2):
        pass
    found = selection.result()
    return (found.gap, found.next_since) if isinstance(found, ReadResult) else found


def test_read_selects_the_wanted_topics_in_order() -> None:
    index = _index(("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5))
    assert _select(index, _span(0, 5, ["b", "a", "missing"])) == [1, 2, 3, 5]
    assert _select(index, _span(1, 4, ["b", "a"])) == [2, 3]


def test_read_selects_by_function() -> None:
    index = _index(("a", 1), ("b", 2), ("c", 3), ("a", 4))
    assert _select(index, _span(1, 9, lambda topic: topic in "ab")) == [2, 4]
    assert _select(index, _span(4, 9, lambda topic: True)) == []


def test_function_is_called_once_for_each_topic() -> None:
    asked: list[str] = []
    index = _index(("a", 1), ("b", 2), ("a", 3), ("b", 4))
    _select(index, _span(0, 9, lambda topic: bool(asked.append(topic))))
    assert sorted(asked) == ["a", "b"]


def test_step_looks_at_few_topics() -> None:
    asked: list[str] = []
    index = _index(*((str(number), number) for number in range(1, 6)))
    selection = Selection(index, _span(0, 9, lambda topic: bool(asked.append(topic))), 0)
    assert [len(asked) for _ in selection.steps(2)] == [2, 4]
    assert len(asked) == 5


def test_history_size_and_ttl_apply() -> None:
    index = TopicIndex(0)
    for offset in (1, 2, 3):
        index.add([Entry("t", offset, 1000, 2)])
    assert _select(index, _span(1, 3, ["t"]), 999) == [2, 3]
    assert _select(index, _span(0, 3, ["t"]), 999) == (GapReason.TRIMMED, 1), "three records, and two are kept"
    assert _select(index, _span(1, 3, ["t"]), 1000) == (GapReason.TRIMMED, 3), "they have expired"
    assert _select(index, _span(3, 3, ["t"]), 1000) == []


def test_records_after_the_span_count_for_the_size() -> None:
    newest_first = [Entry("t", offset, LATER, 2) for offset in (4, 3, 2)]
    assert last_lost(newest_first[1:], 3, 0) == 0
    assert last_lost(newest_first, 3, 0) == 2
    assert last_lost(newest_first, 1, 0) == 0, "nothing of them is wanted"


def test_read_over_limit_is_too_many() -> None:
    index = _index(("a", 1), ("a", 2), ("b", 3))
    assert _select(index, _span(0, 9, ["a", "b"], limit=3)) == [1, 2, 3]
    assert _select(index, _span(0, 9, ["a", "b"], limit=2)) == (GapReason.TOO_MANY, 1)
    assert _select(index, _span(0, 9, ["a", "b"], max_bytes=20)) == (GapReason.TOO_MANY, 1)
    assert _select(index, _span(0, 9, ["a", "b"], max_bytes=30)) == [1, 2, 3]


def test_oldest_entries_are_dropped() -> None:
    index = _index(("a", 1), ("b", 2), ("a", 3), ("a", 4), max_entries=3)
    assert (len(index), index.lo, index.floor, index.floor_reason) == (3, 1, 1, GapReason.TOO_MANY)
    index.add([Entry("c", 5, LATER, 1)])
    assert (len(index), index.lo) == (3, 2)
    assert _select(index, _span(2, 9, lambda topic: True)) == [3, 4, 5]


def test_index_is_extended_by_older_records() -> None:
    index = _index(("a", 6), ("b", 7), lo=5)
    index.extend(_index(("a", 2), ("b", 3), ("a", 5), ("c", 6), lo=1), 2)
    assert (len(index), index.lo, index.floor) == (4, 2, -1)
    assert _select(index, _span(2, 9, lambda topic: True)) == [3, 5, 6, 7]
    index.add([Entry("a", 8, LATER, 100)])
    assert _select(index, _span(2, 9, ["a"])) == [5, 6, 8]


def test_full_index_is_not_extended_further() -> None:
    index = _index(("a", 6), ("b", 7), lo=5, max_entries=3)
    index.extend(_index(("a", 2), ("b", 3), ("a", 5), lo=1), 1)
    assert (len(index), index.lo, index.floor, index.floor_reason) == (3, 3, 3, GapReason.TOO_MANY)
    assert _select(index, _span(3, 9, lambda topic: True)) == [5, 6, 7]


def test_gap_among_older_records_is_floor() -> None:
    index = _index(("a", 6), lo=5)
    index.extend(_index(("a", 4), lo=3), 1)
    assert (len(index), index.lo, index.floor, index.floor_reason) == (2, 3, 3, GapReason.TRIMMED)


def test_floor_only_rises() -> None:
    index = TopicIndex(9)
    index.raise_floor(5, GapReason.TRIMMED)
    index.raise_floor(4, GapReason.TOO_MANY)
    assert (index.floor, index.floor_reason) == (5, GapReason.TRIMMED)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 20)), max_size=30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sets(st.sampled_from("abc")),
    st.integers(0, 20),
    st.booleans(),
    st.integers(0, 30),
)
def test_index_agrees_with_a_plain_list(
    records: list[tuple[str, int, int]],
    since: int,
    until: int,
    topics: set[str],
    now: int,
    by_function: bool,
    divided_at: int,
) -> None:
    index, older = TopicIndex(divided_at), TopicIndex(0)
    for offset, (topic, size, expires) in enumerate(records, 1):
        (index if offset > divided_at else older).add([Entry(topic, offset, expires, size)])
    index.extend(older, 0)
    wanted: WantedTopics = topics.__contains__ if by_function else topics
    found = _select(index, _span(since, until, wanted), now)
    assert found == _expected(records, since, until, topics, now)
    if isinstance(found, tuple):
        assert found[1] is not None
        assert isinstance(_select(index, _span(found[1], until, wanted), now), list)
        assert not isinstance(_select(index, _span(found[1] - 1, until, wanted), now), list)


def _expected(
    records: list[tuple[str, int, int]], since: int, until: int, topics: Collection[str], now: int
) -> list[Offset] | tuple[GapReason, Offset]:
    found: list[Offset] = []
    lost: list[Offset] = []
    for topic in topics:
        newer = [(offset, *r[1:]) for offset, r in enumerate(records, 1) if r[0] == topic and offset > since]
        kept = {offset for offset, _, _ in newer[-newer[-1][1] :]} if newer and newer[-1][1] else set()
        wanted = [(offset, expires) for offset, _, expires in newer if offset <= until]
        lost += [offset for offset, expires in wanted if offset not in kept or expires <= now]
        found += [offset for offset, _ in wanted]
    return (GapReason.TRIMMED, max(lost)) if lost else sorted(found)
