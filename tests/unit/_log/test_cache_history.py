"""The cache's answers for reconnecting clients, compared with the answers of a real log."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from dws_memory._log import Partition
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.cache import LogCache
from dws_core._log.records import GapReason, History, ReadResult, ReadSpan, Record

HISTORIES = {"few": History(size=2), "short": History(ttl_s=3), "none": History.none(), "all": History()}
Step: TypeAlias = str | int
"""A topic to publish to, or a number of seconds to wait."""

STEPS = st.lists(st.sampled_from([*HISTORIES, "few", "short", 1, 2]), max_size=25)
TOPICS = st.sets(st.sampled_from(sorted(HISTORIES)), min_size=1)


class Pair:
    """A log, and the cache of a node that tails it."""

    def __init__(self, **bounds: float) -> None:
        self.log = Partition(0, "e")
        self.cache = LogCache(self.log.head, history=HISTORIES.__getitem__, **bounds)  # type: ignore[arg-type]
        self.log.readers = (self,)
        self.now = 0.0

    def add(self, record: Record) -> None:
        self.cache.advance("e", self.cache.hi, self.log.end, [record], now=self.now)

    def do(self, step: Step) -> None:
        if isinstance(step, int):
            self.now += step
            self.cache.expire(self.now)
            return
        history = HISTORIES[step]
        facts = {"publisher": b"p", "seq": 1, "ts_ms": 0, "key": None, "key_ttl_s": 60.0}
        self.log.publish(step, b"", history=history, now=self.now, **facts)  # type: ignore[arg-type]

    def asked(self, since: int, topics: set[str]) -> ReadResult:
        return self.log.read(
            ReadSpan(partition=0, epoch="e", since=since, until=self.log.end, topics=topics, limit=999, max_bytes=999),
            now=self.now,
        )


@given(STEPS, TOPICS, st.booleans())
def test_cache_answers_like_broker_or_defers(steps: list[Step], topics: set[str], wildcard: bool) -> None:
    pair = Pair()
    for step in steps:
        pair.do(step)
    for since in range(pair.cache.lo, pair.cache.hi + 1):
        found = pair.cache.missed(since, topics.__contains__ if wildcard else topics)
        if found is None:
            assert pair.asked(since, topics).gap is GapReason.TRIMMED
        else:
            assert pair.asked(since, topics) == ReadResult(records=found)


def test_read_over_history_size_is_left_to_broker() -> None:
    pair = Pair()
    for step in ("few", "all", "few", "few", "all"):
        pair.do(step)
    assert pair.cache.missed(0, {"few"}) is None
    assert pair.cache.missed(0, {"few", "all"}) is None
    assert [record.offset for record in pair.cache.missed(1, {"few", "all"}) or ()] == [2, 3, 4, 5]


def test_read_past_history_ttl_is_left_to_broker() -> None:
    pair = Pair()
    for step in ("short", 2, "short", "all", 1):
        pair.do(step)
    assert pair.cache.missed(0, {"short"}) is None
    assert [record.offset for record in pair.cache.missed(1, {"short"}) or ()] == [2]
    assert [record.offset for record in pair.cache.missed(0, {"all"}) or ()] == [3]


def test_fully_expired_history_is_left_to_broker() -> None:
    """Only a read that starts after the expired records is answered from the cache."""
    pair = Pair()
    for step in ("short", "short", 2, 1):
        pair.do(step)
    assert pair.cache.missed(1, {"short"}) is None
    assert pair.cache.missed(2, {"short"}) == ()


def test_evicted_records_are_left_to_broker() -> None:
    pair = Pair(max_records=1)
    pair.do("all")
    pair.do("all")
    assert pair.cache.missed(0, {"all"}) is None


@pytest.mark.parametrize("topic", ["few", "short"])
def test_cache_without_histories_returns_all_records(topic: str) -> None:
    log = Partition(0, "e")
    cache = LogCache(log.head)
    records = [Record(offset=n, topic=topic, payload=b"", ts_ms=0, publisher=b"p", seq=n) for n in range(1, 9)]
    cache.advance("e", 0, 8, records, now=0)
    cache.expire(50)
    assert cache.missed(0, {topic}) == tuple(records)
