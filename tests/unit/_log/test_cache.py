"""The node's cache of recent records, compared with a plain list of all records."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.cache import LogCache
from dws_core._log.records import Head, Offset, Record
from dws_core._topics.trie import TrieIndex
from dws_core._topics.wanted import WantedMatch


def rec(offset: Offset | None, topic: str = "t", payload: bytes = b"") -> Record:
    return Record(offset=offset, topic=topic, payload=payload, ts_ms=0, publisher=b"p", seq=1)


def cache(offset: Offset = 0, **bounds: float) -> LogCache:
    return LogCache(Head(partition=3, epoch="e", offset=offset), **bounds)  # type: ignore[arg-type]


def fill(made: LogCache, *topics: str, now: float = 0.0) -> LogCache:
    """Add one record for each topic, in one range."""
    lo = made.hi
    made.advance("e", lo, lo + len(topics), [rec(lo + n, topic) for n, topic in enumerate(topics, 1)], now=now)
    return made


def offsets(found: tuple[Record, ...] | None) -> list[Offset | None] | None:
    return None if found is None else [record.offset for record in found]


def test_cache_starts_empty_at_baseline() -> None:
    made = cache(7)
    assert (made.partition, made.epoch, made.lo, made.hi, len(made)) == (3, "e", 7, 7, 0)
    assert made.read(7, 7, {"t"}) == ()
    assert made.read(6, 7, {"t"}) is None


def test_exact_topic_is_read_in_order() -> None:
    made = fill(cache(), "t", "u", "t", "v", "t")
    assert offsets(made.read(0, 5, {"t"})) == [1, 3, 5]
    assert offsets(made.read(1, 4, {"t"})) == [3]
    assert offsets(made.read(0, 5, ["u", "t", "nothing"])) == [1, 2, 3, 5]
    assert made.read(5, 5, {"t"}) == ()


def test_wildcard_matches_each_changed_topic_once() -> None:
    made = fill(cache(), "a", "b", "c", "a", "b", "a")
    asked: list[str] = []

    def match(topic: str) -> bool:
        asked.append(topic)
        return topic != "b"

    assert offsets(made.read(3, 6, match)) == [4, 6]
    assert asked == ["a", "b"], "c did not change since"


def test_range_beyond_watermark_is_not_covered() -> None:
    assert fill(cache(), "t").read(0, 2, {"t"}) is None


def test_range_without_records_moves_only_watermark() -> None:
    made = fill(cache(), "t")
    made.advance("e", 1, 900, [], now=0)
    assert (made.lo, made.hi) == (0, 900)
    assert offsets(made.read(0, 900, {"t"})) == [1]


def test_records_without_offset_are_not_cached() -> None:
    made = cache(4)
    made.advance("e", 4, 4, [rec(None)], now=0)
    assert (len(made), made.hi, made.size_bytes) == (0, 4, 0)


@pytest.mark.parametrize("forwards", [("e", 9), ("f", 1)])
def test_noncontiguous_range_restarts_cache(forwards: tuple[str, int]) -> None:
    epoch, lo = forwards
    made = fill(cache(), "t")
    made.advance(epoch, lo, lo + 1, [rec(lo + 1)], now=0)
    assert (made.epoch, made.lo, made.hi, len(made)) == (epoch, lo, lo + 1, 1)
    assert made.read(0, 1, {"t"}) is None


def test_reset_clears_cache() -> None:
    made = fill(cache(), "t", "u")
    made.reset(Head(partition=3, epoch="f", offset=40))
    assert (made.epoch, made.lo, made.hi, len(made), made.size_bytes) == ("f", 40, 40, 0, 0)
    assert made.read(40, 40, lambda _: True) == ()


def test_record_limit_evicts_oldest() -> None:
    made = fill(cache(max_records=2), "a", "b", "a", "c")
    assert (made.lo, len(made)) == (2, 2)
    assert made.read(1, 4, {"a"}) is None
    assert offsets(made.read(2, 4, {"a", "b", "c"})) == [3, 4]


def test_byte_limit_evicts_oldest() -> None:
    made = cache(max_bytes=1_000)
    for offset in range(1, 4):
        made.advance("e", offset - 1, offset, [rec(offset, payload=b"x" * 300)], now=0)
    assert (made.lo, len(made), made.size_bytes) == (2, 1, 556)


def test_record_over_byte_limit_is_not_cached() -> None:
    made = cache(max_bytes=1_000)
    made.advance("e", 0, 1, [rec(1, payload=b"x" * 5_000)], now=0)
    assert (made.lo, made.hi, len(made), made.size_bytes) == (1, 1, 0, 0)


def test_zero_capacity_keeps_epoch_and_watermark() -> None:
    made = fill(cache(max_records=0), "a", "b")
    assert (made.lo, made.hi, made.size_bytes) == (2, 2, 0)


def test_old_records_expire() -> None:
    made = cache(max_age_s=10)
    fill(made, "a", "b", now=0)
    fill(made, "a", now=5)
    assert made.lo == 0
    made.expire(9.9)
    assert made.lo == 0
    fill(made, "c", now=10)
    assert (made.lo, len(made)) == (2, 2)
    made.expire(100)
    assert (made.lo, made.hi, len(made), made.size_bytes) == (4, 4, 0, 0)


def test_read_of_newest_records_compares_few_offsets() -> None:
    """Reading 50 of 20,000 records does not look at the other records."""
    compared: list[int] = []

    class Counted(int):
        def __le__(self, other: int) -> bool:
            compared.append(self)
            return super().__le__(other)

    made = cache()
    records = [rec(Counted(n), "t" if n > 19_950 else f"other/{n % 100}") for n in range(1, 20_001)]
    made.advance("e", 0, 20_000, records, now=0)
    compared.clear()
    assert offsets(made.read(19_950, 20_000, {"t"})) == list(range(19_951, 20_001))
    assert len(compared) <= 100, "one look at each end of the range"


step = st.one_of(
    st.tuples(st.just("add"), st.lists(st.sampled_from(["a", "b", "c/d", ""]), max_size=5)),
    st.tuples(st.just("expire"), st.integers(0, 8)),
)
wanted: dict[str, Callable[[str], bool]] = {"all": lambda _: True, "a or b": lambda t: t in ("a", "b")}


@given(st.lists(step, max_size=25), st.data())
def test_read_is_exact_or_none(steps: list[tuple[str, list[str] | int]], data: st.DataObject) -> None:
    made = cache(max_records=8, max_bytes=256 * 6, max_age_s=10)
    log: list[Record] = []
    now = 0.0
    for kind, value in steps:
        if kind == "add":
            assert isinstance(value, list)
            lo = made.hi
            batch = [rec(lo + 2 * n if topic else None, topic) for n, topic in enumerate(value, 1)]
            log += [record for record in batch if record.topic]
            made.advance("e", lo, lo + 2 * len(value) + 1, batch, now=now)
        else:
            assert isinstance(value, int)
            made.expire(now := now + value)
    assert len(made) <= 8
    assert made.size_bytes == len(made) * 256
    since = data.draw(st.integers(0, made.hi))
    until = data.draw(st.integers(since, made.hi))
    match = data.draw(st.sampled_from(sorted(wanted)))
    found = made.read(since, until, wanted[match])
    named = made.read(since, until, {"a", "b"})
    truth = [r.offset for r in log if since < (r.offset or 0) <= until and wanted[match](r.topic)]
    if since >= made.lo:
        assert offsets(found) == truth
        assert offsets(named) == [r.offset for r in log if since < (r.offset or 0) <= until and r.topic in ("a", "b")]
    else:
        assert found is None
        assert named is None


@pytest.mark.parametrize(
    ("until", "limit", "max_bytes", "expected"),
    [
        (6, 2, 99, [5, 6]),
        (5, 2, 99, [4, 5]),
        (6, 4, 99, [2, 4, 5, 6]),
        (6, 5, 99, None),
        (6, 5, 20, [5, 6]),
        (6, 5, 29, [5, 6]),
        (6, 5, 9, []),
        (7, 1, 99, None),
    ],
)
def test_last_records_fit_into_both_limits(
    until: Offset, limit: int, max_bytes: int, expected: list[Offset] | None
) -> None:
    """The result is None if the log may have more records that fit."""
    made = cache()
    records = [rec(offset, "u" if offset in {1, 3} else "t", b"x" * 10) for offset in range(1, 7)]
    made.advance("e", 0, 6, records, now=0.0)
    assert offsets(made.last("t", until, limit=limit, max_bytes=max_bytes)) == expected


def index_of(*filters: str) -> WantedMatch:
    return WantedMatch({"named"}, filters, TrieIndex)


def test_many_topics_are_matched_with_index() -> None:
    """The answer is the same as without an index, also after topics were added and evicted."""
    made = cache(max_records=2_000)
    names = [f"{kind}/{number}" for number in range(700) for kind in ("a", "b", "$c")]
    fill(made, *names, "named")
    wanted = index_of("a/+", "b/6/#", "+/7")
    while made.prepare(0, wanted):
        pass
    fill(made, "a/new", "b/8", "named", *names[-600:])
    for since in (made.lo, made.lo + 700, made.hi - 100, made.hi):
        plain = made.read(since, made.hi, wanted.__call__)
        assert offsets(made.read(since, made.hi, wanted)) == offsets(plain)


def test_index_is_built_only_for_many_changed_topics() -> None:
    made = fill(cache(), *(f"t/{number}" for number in range(2_500)))
    assert not made.prepare(made.hi - 400, index_of("t/#"))
    assert not made.prepare(0, {"t/1"})
    assert made._by_level is None
    steps = [made.prepare(0, index_of("t/#")) for _ in range(3)]
    assert steps == [True, True, False]


def test_unused_index_is_dropped() -> None:
    made = fill(cache(max_age_s=60.0), *(f"t/{number}" for number in range(600)))
    made.prepare(0, index_of("t/#"))
    assert made._by_level is not None
    made.expire(61.0)
    assert made._by_level is None
