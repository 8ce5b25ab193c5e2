"""Records without history that do not pass through the stream."""

from __future__ import annotations

from dws_core._log.records import Receipt
from dws_core._log.stream.envelope import Draft, Envelope, Kind, encode
from dws_core._log.stream.lane import Lane, from_any, to_all
from dws_core._log.stream.publishing import PublishQueue
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.tail import Stored, StreamTail
from dws_core._log.tail import Advance

US, THEM = b"publishe", b"stranger"


def make() -> tuple[Lane[str], StreamTail]:
    tail = StreamTail(0, US, None, max_skip=0)
    return Lane(US, PublishQueue(StreamSettings())), tail


def envelope(
    first: int, *payloads: bytes, publisher: bytes = THEM, previous: int = 0, key: str | None = None
) -> Envelope:
    drafts = [Draft("t", payload, 0, 0, key) for payload in payloads]
    return Envelope(
        kind=Kind.RECORDS, publisher=publisher, time_ms=1_000, first=first, previous=previous, drafts=drafts
    )


def store(tail: StreamTail, offset: int, first: int) -> None:
    """Let the tail read one record of the other node."""
    kept = Envelope(kind=Kind.RECORDS, publisher=THEM, time_ms=1_000, first=first, drafts=[Draft("k", b"", 1, 1, None)])
    tail.feed(offset, encode(kept))


def payloads(events: list[Advance | Stored]) -> list[bytes]:
    return [record.payload for event in events if isinstance(event, Advance) for record in event.records]


def test_records_move_no_watermark_and_have_no_offset() -> None:
    lane, tail = make()
    store(tail, 5, 1)
    (event,) = lane.feed(envelope(1, b"a", b"b"), tail)
    assert isinstance(event, Advance)
    assert event.lo == event.hi == tail.mark
    assert [(record.payload, record.offset, record.seq) for record in event.records] == [
        (b"a", None, 1),
        (b"b", None, 2),
    ]


def test_repeated_envelope_is_delivered_once() -> None:
    lane, tail = make()
    assert payloads(lane.feed(envelope(1, b"a", b"b"), tail)) == [b"a", b"b"]
    assert payloads(lane.feed(envelope(1, b"a", b"b"), tail)) == []
    assert payloads(lane.feed(envelope(2, b"b", b"c"), tail)) == [b"c"]


def test_records_wait_for_earlier_ones_in_stream() -> None:
    lane, tail = make()
    store(tail, 5, 1)
    assert lane.feed(envelope(1, b"a", previous=2), tail) == []
    assert lane.feed(envelope(2, b"b", previous=2), tail) == []
    store(tail, 6, 2)
    assert payloads(lane.due(tail)) == [b"a", b"b"]


def test_records_of_publisher_without_stored_ones_do_not_wait() -> None:
    lane, tail = make()
    assert payloads(lane.feed(envelope(1, b"a", previous=7), tail)) == [b"a"]


def test_waiting_records_are_bounded() -> None:
    lane, tail = make()
    store(tail, 5, 1)
    found = [payloads(lane.feed(envelope(n, b"%d" % n, previous=2), tail)) for n in range(1, 1003)]
    assert found[-2:] == [[b"1"], [b"2"]]
    lane.clear()
    store(tail, 6, 2)
    assert lane.due(tail) == []


def test_size_of_waiting_records_is_bounded() -> None:
    lane, tail = make()
    store(tail, 5, 1)
    large = b"x" * 10_000_000
    assert payloads(lane.feed(envelope(1, large, previous=2), tail)) == []
    assert payloads(lane.feed(envelope(2, large, previous=2), tail)) == [large]
    assert payloads(lane.feed(envelope(3, b"small", previous=2), tail)) == []
    lane.clear()
    assert payloads(lane.feed(envelope(4, large, previous=2), tail)) == []


def test_own_records_complete_their_publishes() -> None:
    lane, tail = make()
    _, event = lane.feed(envelope(1, b"a", publisher=US), tail)
    assert event == Stored(1, [Receipt(epoch="", offset=None)], is_lane=True)


def test_repeated_key_is_duplicate() -> None:
    lane, tail = make()
    lane.feed(envelope(1, b"a", key="k"), tail)
    (event,) = lane.feed(envelope(1, b"again", publisher=US, key="k"), tail)
    assert event == Stored(1, [Receipt(epoch="", offset=None, duplicate=True)], is_lane=True)
    assert lane.find_key("t", "k", 1_000, "e") == Receipt(epoch="e", offset=None, duplicate=True)
    assert lane.find_key("t", "other", 1_000, "e") is None


def test_message_to_all_nodes_names_its_partition() -> None:
    assert from_any(to_all(7, encode(envelope(1, b"a")))) == (7, envelope(1, b"a"))
    assert from_any(b"short") == (int.from_bytes(b"shor", "big"), None)
