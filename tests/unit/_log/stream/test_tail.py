from __future__ import annotations

from collections.abc import Sequence

import pytest

from dws_core._log.records import GapReason
from dws_core._log.stream.envelope import Draft, Envelope, Kind, encode
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.tail import INDEX_BITS, Control, Moved, ProbeSeen, Stored, StreamTail, TailEvent
from dws_core._log.tail import Advance, Lost

ME, OTHER = b"node-me.", b"node-oth"
EPOCH = Claim(b"e" * 8, 0)


def _tail(*, live: bool = True, max_skip: int | None = 0, claim: Claim | None = EPOCH) -> StreamTail:
    tail = StreamTail(3, ME, claim, max_skip=max_skip)
    tail.live = live
    return tail


def _draft(payload: bytes = b"x", *, topic: str = "t", size: int = 10, key: str | None = None) -> Draft:
    return Draft(topic, payload, size, 60_000, key)


def _records(
    first: int, *payloads: bytes, publisher: bytes = OTHER, previous: int = 0, time_ms: int = 1000, size: int = 10
) -> bytes:
    drafts = [_draft(payload, size=size) for payload in payloads]
    return _envelope(Kind.RECORDS, publisher=publisher, first=first, previous=previous, drafts=drafts, time_ms=time_ms)


def _envelope(kind: Kind, *, publisher: bytes = OTHER, drafts: Sequence[Draft] = (), **changes: int) -> bytes:
    values = {"time_ms": 1000} | changes
    return encode(Envelope(kind=kind, publisher=publisher, epoch=EPOCH.epoch, drafts=drafts, **values))


def _genesis(epoch: bytes, parent: bytes = EPOCH.epoch) -> bytes:
    return encode(Envelope(kind=Kind.GENESIS, publisher=OTHER, time_ms=1000, epoch=epoch, parent=parent))


def _advance(events: Sequence[TailEvent]) -> Advance:
    (found,) = [event for event in events if isinstance(event, Advance)]
    return found


def _lost(events: Sequence[TailEvent]) -> list[Lost]:
    return [event for event in events if isinstance(event, Lost)]


def test_records_are_delivered_with_their_places() -> None:
    tail = _tail()
    found = _advance(tail.feed(5, _records(1, b"a", b"b")))
    assert (found.partition, found.epoch, found.lo, found.hi) == (3, EPOCH.text, 0, 5 << INDEX_BITS | 1)
    assert [(r.offset, r.payload, r.seq) for r in found.records] == [
        (5 << INDEX_BITS, b"a", 1),
        (5 << INDEX_BITS | 1, b"b", 2),
    ]
    record = found.records[0]
    assert (record.topic, record.ts_ms, record.publisher, record.key) == ("t", 1000, OTHER, None)
    assert (tail.head.offset, tail.head.epoch, tail.offset) == (5 << INDEX_BITS | 1, EPOCH.text, 5)


def test_ranges_join() -> None:
    tail = _tail()
    first = _advance(tail.feed(0, _records(1, b"a", b"b")))
    second = _advance(tail.feed(1, _envelope(Kind.PROBE)))
    third = _advance(tail.feed(2, _records(3, b"c")))
    assert first.hi == second.lo
    assert second.hi == third.lo
    assert second.records == []


def test_ephemeral_records_have_no_offset() -> None:
    tail = _tail()
    found = _advance(tail.feed(0, _records(1, b"a", size=0)))
    assert [record.offset for record in found.records] == [None]
    assert len(tail.index) == 0


def test_repeat_of_a_publisher_is_dropped() -> None:
    tail = _tail()
    tail.feed(0, _records(1, b"a", b"b"))
    assert _advance(tail.feed(1, _records(1, b"a", b"b"))).records == []
    assert [r.payload for r in _advance(tail.feed(2, _records(2, b"b", b"c"))).records] == [b"c"]


def test_same_offset_is_read_once() -> None:
    tail = _tail()
    tail.feed(4, _records(1, b"a"))
    assert tail.feed(4, _records(1, b"a")) == []
    assert tail.feed(3, _records(1, b"a")) == []


def test_repeat_of_a_key_is_dropped() -> None:
    tail = _tail()
    tail.feed(0, _envelope(Kind.RECORDS, first=1, drafts=[_draft(b"a", key="k")]))
    found = tail.feed(1, _envelope(Kind.RECORDS, first=2, drafts=[_draft(b"b", key="k"), _draft(b"c")]))
    assert [(r.payload, r.offset) for r in _advance(found).records] == [(b"c", 1 << INDEX_BITS | 1)]


def test_own_records_get_receipts() -> None:
    tail = _tail()
    drafts = [_draft(b"a", key="k"), _draft(b"b", size=0), _draft(b"c", key="k")]
    events = tail.feed(7, _envelope(Kind.RECORDS, publisher=ME, first=4, drafts=drafts))
    (stored,) = [event for event in events if isinstance(event, Stored)]
    assert stored.first == 4
    place = 7 << INDEX_BITS
    assert [(r.epoch, r.offset, r.duplicate) for r in stored.receipts] == [
        (EPOCH.text, place, False),
        (EPOCH.text, None, False),
        (EPOCH.text, place, True),
    ]
    assert events.index(stored) > events.index(_advance(events)), "delivered before the publish completes"


def test_own_repeat_has_no_second_receipt() -> None:
    tail = _tail()
    tail.feed(0, _records(1, b"a", publisher=ME))
    assert not [event for event in tail.feed(1, _records(1, b"a", publisher=ME)) if isinstance(event, Stored)]


def test_key_is_found_after_its_record() -> None:
    tail = _tail()
    assert tail.find_key("t", "k", 1000) is None
    tail.feed(2, _envelope(Kind.RECORDS, first=1, drafts=[_draft(b"a", key="k")]))
    found = tail.find_key("t", "k", 1000)
    assert found is not None
    assert (found.epoch, found.offset, found.duplicate) == (EPOCH.text, 2 << INDEX_BITS, True)


def test_unreadable_envelope_is_gap() -> None:
    tail = _tail()
    tail.feed(0, _records(1, b"a"))
    (lost,) = tail.feed(1, b"\x07 garbage")
    assert isinstance(lost, Lost)
    assert (lost.reason, lost.head.offset, tail.unreadable) == (GapReason.TRIMMED, 1 << INDEX_BITS, 1)
    found = _advance(tail.feed(2, _records(2, b"b")))
    assert (found.lo, len(found.records)) == (lost.head.offset, 1)
    assert tail.index.lo == tail.index.floor == 1 << INDEX_BITS, "a read across it is a gap"


@pytest.mark.parametrize(("max_skip", "gap"), [(0, True), (1, True), (2, False), (None, False)])
def test_jump_of_the_offsets_is_gap(max_skip: int | None, gap: bool) -> None:
    tail = _tail(max_skip=max_skip)
    tail.feed(4, _records(1, b"a"))
    events = tail.feed(7, _records(2, b"b"))
    assert bool(_lost(events)) is gap
    assert len(_advance(events).records) == 1
    if gap:
        assert events[0] == Lost(reason=GapReason.TRIMMED, head=_lost(events)[0].head)
        assert _lost(events)[0].head.offset == _advance(events).lo == (7 << INDEX_BITS) - 1


def test_first_record_is_no_jump() -> None:
    tail = _tail()
    assert not _lost(tail.feed(100, _records(9, b"a", previous=8)))
    assert tail.index.lo == (100 << INDEX_BITS) - 1


def test_missing_previous_is_gap() -> None:
    """The publisher saw its record 2 in the stream, and this reader did not."""
    tail = _tail()
    tail.feed(0, _records(1, b"a"))
    events = tail.feed(1, _records(3, b"c", previous=2))
    assert [event.reason for event in _lost(events)] == [GapReason.TRIMMED]
    assert not _lost(tail.feed(2, _records(4, b"d", previous=3)))


def test_probe_and_control_messages_are_events() -> None:
    tail = _tail()
    assert ProbeSeen(7) in tail.feed(0, _envelope(Kind.PROBE, publisher=ME, first=7))
    assert not [e for e in tail.feed(1, _envelope(Kind.PROBE, first=7)) if isinstance(e, ProbeSeen)]
    assert Control(OTHER, b"hi") in tail.feed(2, _envelope(Kind.CONTROL, drafts=[_draft(b"hi")]))
    assert len(tail.feed(3, _envelope(Kind.CONTROL))) == 1, "a control message without content only advances"


def test_resume_expects_the_last_envelope_again() -> None:
    tail = _tail()
    tail.feed(4, _records(1, b"a"))
    assert (tail.resume(), tail.is_resuming) == (4, True)
    assert tail.feed(4, _records(1, b"a")) == []
    assert not tail.is_resuming
    assert len(_advance(tail.feed(5, _records(2, b"b"))).records) == 1


def test_resume_at_another_envelope_is_a_move() -> None:
    for offset, data, moved in (
        (4, _records(1, b"a", time_ms=2000), Moved(GapReason.EPOCH, suspect=True)),
        (2, _records(1, b"a"), Moved(GapReason.EPOCH, suspect=True)),
        (9, _records(5, b"e"), Moved(GapReason.TRIMMED)),
    ):
        tail = _tail()
        tail.feed(4, _records(1, b"a"))
        tail.resume()
        assert tail.feed(offset, data) == [moved]


def test_resume_after_unreadable_envelope() -> None:
    tail = _tail()
    tail.feed(4, b"\x07 garbage")
    tail.resume()
    assert tail.feed(4, b"\x07 garbage") == []


def test_new_epoch_moves_a_live_tail() -> None:
    tail = _tail()
    tail.feed(0, _records(1, b"a"))
    assert tail.feed(1, _genesis(b"f" * 8)) == [Moved(GapReason.EPOCH)]


def test_strange_claim_moves_a_live_tail() -> None:
    """The stream was replaced, and the new one has grown past the old position."""
    tail = _tail()
    tail.feed(5, _records(1, b"a"))
    strange = encode(Envelope(kind=Kind.PROBE, publisher=OTHER, time_ms=1, epoch=b"f" * 8, began=5))
    assert tail.feed(6, strange) == [Moved(GapReason.EPOCH)]


def test_starting_tail_adopts_the_epoch_it_reads() -> None:
    tail = _tail(live=False, claim=None)
    assert tail.epoch == ""
    assert _advance(tail.feed(0, _genesis(b"f" * 8, parent=bytes(8)))).epoch == "66" * 8
    assert tail.claim == Claim(b"f" * 8, 0)


def test_place_after_end_is_beyond() -> None:
    tail = _tail()
    tail.feed(4, _records(1, b"a", b"b"))
    assert not tail.is_beyond(4 << INDEX_BITS | 1)
    assert tail.is_beyond(4 << INDEX_BITS | 2)
    assert tail.is_beyond(5 << INDEX_BITS)


def test_place_of_a_probe_after_the_end_is_not_beyond() -> None:
    """Every node sees the probes, so a cursor may be there. No record was ever at index 1 of a probe."""
    tail = _tail()
    tail.feed(4, _records(1, b"a", b"b"))
    tail.feed(5, _envelope(Kind.PROBE))
    tail.feed(6, _envelope(Kind.PROBE))
    assert not tail.is_beyond(5 << INDEX_BITS)
    assert tail.is_beyond(5 << INDEX_BITS | 1)
    assert not tail.is_beyond((6 << INDEX_BITS) - 1), "the place before a gap"
    assert not tail.is_beyond(4 << INDEX_BITS)
