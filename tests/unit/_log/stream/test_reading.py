from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.records import GapReason
from dws_core._log.stream.envelope import Draft, Envelope, Kind, UnreadableEnvelope, encode
from dws_core._log.stream.reading import Picker, runs
from dws_core._log.stream.tail import INDEX_BITS

PUBLISHER = b"node-a.."


def _place(offset: int, index: int = 0) -> int:
    return offset << INDEX_BITS | index


def _data(first: int, *drafts: Draft) -> bytes:
    return encode(Envelope(kind=Kind.RECORDS, publisher=PUBLISHER, time_ms=1000, first=first, drafts=drafts))


def _draft(payload: bytes, *, key: str | None = None) -> Draft:
    return Draft("t", payload, 10, 1000, key)


def test_close_places_are_read_by_one_scan() -> None:
    assert list(runs([])) == []
    assert list(runs([_place(5), _place(5, 1), _place(20)])) == [(5, 20)]
    assert list(runs([_place(5), _place(38), _place(70)])) == [(5, 5), (38, 70)]


@given(st.lists(st.integers(0, 1000), unique=True))
def test_runs_cover_all_places(offsets: list[int]) -> None:
    found = list(runs([_place(offset) for offset in sorted(offsets)]))
    assert all(any(start <= offset <= stop for start, stop in found) for offset in offsets)
    assert all(start in offsets and stop in offsets for start, stop in found)


def test_picker_takes_the_known_records() -> None:
    picker = Picker([_place(3, 1), _place(5)], 1000)
    picker.feed(2, b"not looked at")
    picker.feed(3, _data(7, _draft(b"no"), _draft(b"a", key="k")))
    picker.feed(5, _data(9, _draft(b"b")))
    picker.feed(6, b"not looked at")
    first, second = picker.result().records
    assert (first.offset, first.topic, first.payload, first.seq, first.key) == (_place(3, 1), "t", b"a", 8, "k")
    assert (first.ts_ms, first.publisher, second.payload) == (1000, PUBLISHER, b"b")


def test_picker_limits_the_bytes() -> None:
    picker = Picker([_place(1)], 3)
    picker.feed(1, _data(1, _draft(b"four")))
    assert picker.result().gap is GapReason.TOO_MANY


def test_missing_record_is_no_partial_answer() -> None:
    picker = Picker([_place(1), _place(2)], 1000)
    picker.feed(1, _data(1, _draft(b"a")))
    with pytest.raises(UnreadableEnvelope, match="missing"):
        picker.result()


def test_other_envelope_at_a_place_is_noticed() -> None:
    picker = Picker([_place(1, 1)], 1000)
    with pytest.raises(UnreadableEnvelope, match="replaced"):
        picker.feed(1, _data(1, _draft(b"a")))
