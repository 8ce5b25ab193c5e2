from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.records import GapReason, ReadSpan, WantedTopics
from dws_core._log.stream.envelope import Draft, Envelope, Kind, UnreadableEnvelope, encode
from dws_core._log.stream.reading import Collector, Picker, runs
from dws_core._log.stream.tail import INDEX_BITS

PUBLISHER = b"node-a.."


def _place(offset: int, index: int = 0) -> int:
    return offset << INDEX_BITS | index


def _data(first: int, *drafts: Draft, time_ms: int = 1000, kind: Kind = Kind.RECORDS) -> bytes:
    return encode(Envelope(kind=kind, publisher=PUBLISHER, time_ms=time_ms, first=first, drafts=drafts))


def _draft(payload: bytes, topic: str = "t", *, size: int = 10, ttl_ms: int = 1000, key: str | None = None) -> Draft:
    return Draft(topic, payload, size, ttl_ms, key)


def _span(
    since: int = 0, until: int = 2**40, topics: WantedTopics = ("t",), limit: int = 100, max_bytes: int = 1000
) -> ReadSpan:
    return ReadSpan(partition=0, epoch="e", since=since, until=until, topics=topics, limit=limit, max_bytes=max_bytes)


def _collect(span: ReadSpan, *envelopes: bytes, now_ms: int = 1500) -> Collector:
    collector = Collector(span, now_ms)
    for offset, data in enumerate(envelopes, 1):
        collector.feed(offset, data)
    return collector


def _payloads(collector: Collector) -> list[bytes]:
    result = collector.result()
    assert result.gap is None
    return [record.payload for record in result.records]


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


def test_collector_returns_the_wanted_records() -> None:
    envelopes = (
        _data(1, _draft(b"before")),
        _data(2, _draft(b"a"), _draft(b"other", "u"), _draft(b"ephemeral", size=0)),
        _data(0, kind=Kind.PROBE),
        _data(5, _draft(b"b")),
        _data(6, _draft(b"after")),
    )
    span = _span(_place(1), _place(4))
    assert _payloads(_collect(span, *envelopes)) == [b"a", b"b"]
    by_function = _span(_place(1), _place(4), topics=lambda topic: topic == "u")
    assert _payloads(_collect(by_function, *envelopes)) == [b"other"]


def test_collector_drops_repeats() -> None:
    """Also of originals that are before the span: a read begins one window before it."""
    envelopes = (
        _data(1, _draft(b"a", key="k")),
        _data(1, _draft(b"a", key="k")),
        _data(2, _draft(b"again", key="k"), _draft(b"b")),
    )
    assert _payloads(_collect(_span(), *envelopes)) == [b"a", b"b"]
    assert _payloads(_collect(_span(_place(1)), *envelopes)) == [b"b"]


def test_collector_applies_size_and_ttl() -> None:
    envelopes = [_data(number, _draft(b"%d" % number, size=2)) for number in range(1, 4)]
    assert _collect(_span(), *envelopes).result().gap is GapReason.TRIMMED
    assert _payloads(_collect(_span(_place(1)), *envelopes)) == [b"2", b"3"]
    assert _collect(_span(_place(1)), *envelopes, now_ms=2000).result().gap is GapReason.TRIMMED


def test_collector_counts_records_and_bytes() -> None:
    envelopes = [_data(number, _draft(b"%d" % number)) for number in range(1, 4)]
    assert _collect(_span(limit=2), *envelopes).gap is GapReason.TOO_MANY
    assert _collect(_span(max_bytes=2), *envelopes).gap is GapReason.TOO_MANY
    assert len(_payloads(_collect(_span(limit=3, max_bytes=3), *envelopes))) == 3


def test_unreadable_envelope_in_the_span_is_trimmed() -> None:
    good, bad = _data(1, _draft(b"a")), b"\x07 garbage"
    assert _collect(_span(), good, bad).result().gap is GapReason.TRIMMED
    assert _payloads(_collect(_span(_place(2)), good, bad)) == []
    assert _payloads(_collect(_span(until=_place(1)), good, bad)) == [b"a"]
    early = _collect(_span(limit=0), good, bad)
    assert early.gap is GapReason.TOO_MANY, "the first reason counts"
