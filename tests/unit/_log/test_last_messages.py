"""The search for the last messages of a topic, where a read may return a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.last_messages import LastMessages
from dws_core._log.records import GapReason, Offset, ReadResult, Record


def rec(offset: Offset) -> Record:
    return Record(offset=offset, topic="t", payload=b"", ts_ms=0, publisher=b"p", seq=offset)


def search(
    stored: list[Offset], until: Offset, limit: int, *, trimmed: Offset = 0, most: int = 10**9
) -> tuple[list[Offset], int]:
    """Search a log, and return the offsets found and the number of reads."""
    lookback = LastMessages(until, limit, first_step=4)
    reads = 0
    while not lookback.done:
        reads += 1
        found = [offset for offset in stored if lookback.since < offset <= until]
        if any(lookback.since < offset <= trimmed for offset in stored):
            lookback.take(ReadResult(gap=GapReason.TRIMMED))
        elif len(found) > most:
            lookback.take(ReadResult(gap=GapReason.TOO_MANY))
        else:
            lookback.take(ReadResult(records=tuple(map(rec, found))))
    assert lookback.gap is None
    return [record.offset or 0 for record in lookback.records], reads


def test_empty_log_needs_no_read() -> None:
    assert search([], 0, 5) == ([], 0)


def test_enough_records_need_one_read() -> None:
    assert search([1, 97, 98, 99], 100, 2) == ([98, 99], 1)


def test_search_widens_until_enough_or_exhausted() -> None:
    assert search([10, 50, 99], 100, 2) == ([50, 99], 3)
    assert search([10, 50, 99], 100, 7)[0] == [10, 50, 99]
    assert search([], 10**15, 7)[1] < 30


def test_trimmed_records_do_not_hide_remaining() -> None:
    assert search([10, 50, 60, 99], 100, 9, trimmed=50)[0] == [60, 99]
    assert search([10, 50], 100, 9, trimmed=50)[0] == []


def test_oversized_read_is_shortened() -> None:
    assert search(list(range(1, 101)), 100, 2, most=3)[0] == [99, 100]


def test_broker_may_say_where_to_continue() -> None:
    lookback = LastMessages(10**9, 5)
    lookback.take(ReadResult(records=(rec(10**9),)))
    lookback.take(ReadResult(gap=GapReason.TRIMMED, next_since=10**9 - 3000))
    assert (lookback.done, lookback.since) == (False, 10**9 - 3000)
    lookback.take(ReadResult(records=(rec(10**9 - 2999), rec(10**9))))
    assert (lookback.done, len(lookback.records)) == (True, 2)


def test_broker_that_says_nothing_new_ends_search() -> None:
    lookback = LastMessages(10**9, 5)
    lookback.take(ReadResult(records=(rec(10**9),)))
    lookback.take(ReadResult(gap=GapReason.TRIMMED, next_since=10**9 - 1024))
    assert (lookback.done, len(lookback.records)) == (True, 1)


def test_calculated_place_need_not_exist() -> None:
    """A stream broker reports a place as ahead if it is after the last record, and no record can have it."""
    lookback = LastMessages(10**9, 1)
    lookback.take(ReadResult(gap=GapReason.AHEAD))
    assert (lookback.done, lookback.since < 10**9 - 1024) == (False, True)
    lookback.take(ReadResult(records=(rec(5),)))
    assert lookback.done


@pytest.mark.parametrize("reason", [GapReason.EPOCH, GapReason.UNSUPPORTED])
def test_unreadable_log_ends_search(reason: GapReason) -> None:
    lookback = LastMessages(100, 5)
    lookback.take(ReadResult(gap=reason))
    assert (lookback.done, lookback.gap, lookback.records) == (True, reason, ())


@given(st.sets(st.integers(1, 200)), st.integers(0, 40), st.integers(1, 30), st.integers(0, 200), st.integers(30, 60))
def test_search_finds_last_remaining_records(
    stored: set[int], beyond: int, limit: int, trimmed: int, most: int
) -> None:
    offsets = sorted(stored)
    until = (offsets[-1] if offsets else 0) + beyond
    left = [offset for offset in offsets if offset > trimmed]
    found, reads = search(offsets, until, limit, trimmed=trimmed, most=most)
    assert found == left[-limit:]
    assert reads <= 16
