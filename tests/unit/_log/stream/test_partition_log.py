from __future__ import annotations

from collections.abc import Sequence

import pytest

from dws_core._log.records import GapReason
from dws_core._log.stream.envelope import NO_EPOCH, Draft, Envelope, Kind, decode, encode
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.partition_log import Live, PartitionEvent, PartitionLog, Phase, Propose
from dws_core._log.stream.publishing import PublishQueue, Waiting
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.tail import Moved, ProbeSeen, Stored
from dws_core._log.stream.wire import StreamBounds
from dws_core._log.tail import Advance, Lost

ME, OTHER = b"node-me.", b"node-oth"
NOW = 5000


class Stream:
    """A stream and one partition log on it. `sync` lets the log read everything."""

    def __init__(self, publisher: bytes = ME) -> None:
        self.records: list[bytes] = []
        self.log: PartitionLog[str] = PartitionLog(0, publisher, PublishQueue(StreamSettings()))
        self.events: list[PartitionEvent] = []
        self._epochs = iter(b"epoch%03d" % number for number in range(1000))

    def append(self, data: bytes) -> int:
        self.records.append(data)
        return len(self.records) - 1

    def join(self, bounds: StreamBounds | None = None) -> int | None:
        """Append the verdict probe, and begin again if the verdict demands it."""
        _, data = self.log.next_probe(NOW, verdict=True)
        start = self.log.judge(self.append(data), bounds)
        if start is None:
            self.log.begin(None)
        return start

    def sync(self, start: int = 0) -> list[PartitionEvent]:
        """Read from a place to the end, and append proposals as the loop does. Return the events."""
        events: list[PartitionEvent] = []
        offset = start
        while offset < len(self.records):
            found = self.log.feed(offset, self.records[offset], lambda: next(self._epochs), NOW)
            events += found
            for event in found:
                if isinstance(event, Propose):
                    self.append(event.data)
                if isinstance(event, Moved):
                    return events
            offset += 1
        return events

    def live(self) -> Stream:
        """Join and become live."""
        self.join()
        self.sync()
        assert self.log.is_live
        return self

    def reconnect(self, bounds: StreamBounds | None = None) -> list[PartitionEvent]:
        """Lose the connection and join again, as often as the verdict demands it."""
        events: list[PartitionEvent] = []
        for _ in range(3):
            self.log.lost()
            start = self.join(bounds)
            events += self.sync(start or 0)
            if self.log.is_live:
                break
        return events

    def publish(self, payload: bytes, publisher: bytes = OTHER, first: int = 1) -> int:
        claim = self.log.tail.claim if self.log.tail else None
        return self.append(_records(claim, payload, publisher=publisher, first=first))


def _records(claim: Claim | None, payload: bytes, *, publisher: bytes = OTHER, first: int = 1) -> bytes:
    return encode(
        Envelope(
            kind=Kind.RECORDS,
            publisher=publisher,
            time_ms=NOW,
            epoch=claim.epoch if claim else NO_EPOCH,
            began=claim.began if claim else 0,
            first=first,
            drafts=[Draft("t", payload, 10, 60_000)],
        )
    )


def _of(events: Sequence[PartitionEvent], kind: type) -> list[PartitionEvent]:
    return [event for event in events if isinstance(event, kind)]


def test_first_node_starts_an_epoch() -> None:
    stream = Stream()
    stream.join()
    events = stream.sync()
    assert [decode(data).kind for data in stream.records] == [Kind.PROBE, Kind.GENESIS]
    assert events[-1] == Live(again=True)
    assert stream.log.tail is not None
    assert stream.log.tail.epoch == b"epoch000".hex()
    assert not _of(events, Advance) + _of(events, Lost), "the node has no baseline yet"


def test_verdict_probe_claims_no_epoch() -> None:
    stream = Stream().live()
    verdict = decode(stream.log.next_probe(NOW, verdict=True)[1])
    ordinary = decode(stream.log.next_probe(NOW)[1])
    assert verdict.epoch == NO_EPOCH
    assert ordinary.epoch == b"epoch000"
    assert ordinary.first == verdict.first + 1


def test_second_node_adopts_the_epoch() -> None:
    first = Stream().live()
    second = Stream(OTHER)
    second.records = first.records
    second.live()
    assert [decode(data).kind for data in second.records].count(Kind.GENESIS) == 1
    assert second.log.tail is not None
    assert second.log.tail.epoch == b"epoch000".hex()


def test_two_proposals_have_one_winner() -> None:
    """Two nodes read the same new stream, and both append a genesis before they see the other's."""
    stream = Stream()
    stream.join()
    rival = encode(Envelope(kind=Kind.GENESIS, publisher=OTHER, time_ms=NOW, epoch=b"rival..."))
    stream.append(rival)
    stream.sync()
    assert stream.log.tail is not None
    assert stream.log.tail.claim == Claim(b"rival...", 1)


def test_live_partition_delivers() -> None:
    stream = Stream().live()
    at = stream.publish(b"a")
    (advance,) = stream.sync(at)
    assert isinstance(advance, Advance)
    assert [record.payload for record in advance.records] == [b"a"]
    assert stream.log.end == at


def test_envelopes_claim_the_epoch_of_a_live_partition() -> None:
    stream = Stream().live()
    queue = stream.log.queue
    queue.add(Waiting("ticket", Draft("t", b"a", 1, 1), 9.0, 1))
    queue.opened(again=False)
    flight = queue.next_flight(NOW)
    assert flight is not None
    for data in (stream.log.records(flight), stream.log.control(NOW, b"hello")):
        assert (decode(data).epoch, decode(data).began) == (b"epoch000", 1)
    assert decode(stream.log.control(NOW, b"hello")).drafts[0].payload == b"hello"
    stream.log.lost()
    assert decode(stream.log.control(NOW, b"hello")).epoch == NO_EPOCH


def test_envelope_names_the_last_seen_own_record() -> None:
    stream = Stream().live()
    queue = stream.log.queue
    queue.acknowledged = 7
    assert decode(stream.log.next_probe(NOW)[1]).previous == 7


def test_reconnect_resumes_without_a_gap() -> None:
    stream = Stream().live()
    stream.log.lost()
    at = stream.publish(b"missed")
    start = stream.join()
    assert start == at - 1
    events = stream.sync(start)
    assert _of(events, Live) == [Live(again=False)]
    assert not _of(events, Lost)
    assert [r.payload for event in events if isinstance(event, Advance) for r in event.records] == [b"missed"]


def test_stream_set_back_starts_new_epoch() -> None:
    stream = Stream().live()
    for number in range(1, 6):
        stream.sync(stream.publish(b"a", first=number))
    del stream.records[3:]
    events = stream.reconnect()
    (lost,) = _of(events, Lost)
    assert isinstance(lost, Lost)
    assert lost.reason is GapReason.EPOCH
    assert stream.log.tail is not None
    assert stream.log.tail.epoch == lost.head.epoch == b"epoch001".hex()


def test_stream_that_has_grown_again_starts_new_epoch() -> None:
    """Other nodes have written to the stream that was set back, so the probe is above everything seen."""
    stream = Stream().live()
    for number in range(1, 4):
        stream.sync(stream.publish(b"old", first=number))
    del stream.records[3:]
    for number in range(7, 11):
        stream.publish(b"new%d" % number, first=number)
    events = stream.reconnect()
    assert [event.reason for event in _of(events, Lost) if isinstance(event, Lost)] == [GapReason.EPOCH]


def test_changed_identity_starts_new_epoch() -> None:
    """A topic was deleted and created again, and contains more records than before."""
    stream = Stream()
    stream.join(StreamBounds(first=0, next=0, identity="old"))
    stream.sync()
    assert stream.log.is_live
    events = stream.reconnect(StreamBounds(first=0, next=9, identity="new"))
    assert [event.reason for event in _of(events, Lost) if isinstance(event, Lost)] == [GapReason.EPOCH]


def test_unknown_identity_is_no_change() -> None:
    stream = Stream()
    stream.join(StreamBounds(first=0, next=0, identity="old"))
    stream.sync()
    assert not _of(stream.reconnect(None), Lost)
    assert not _of(stream.reconnect(StreamBounds(first=0, next=9, identity="old")), Lost)


def test_epoch_of_another_node_ends_the_suspicion() -> None:
    """The stream was set back, and another node has started the new epoch already."""
    stream = Stream().live()
    stream.sync(stream.publish(b"a"))
    parent = decode(stream.records[1])
    del stream.records[2:]
    stream.append(
        encode(Envelope(kind=Kind.GENESIS, publisher=OTHER, time_ms=NOW, epoch=b"others..", parent=parent.epoch))
    )
    stream.reconnect()
    assert stream.log.tail is not None
    assert stream.log.tail.epoch == b"others..".hex()
    assert [decode(data).kind for data in stream.records].count(Kind.GENESIS) == 2


def test_trimmed_place_is_gap_in_the_same_epoch() -> None:
    stream = Stream().live()
    stream.sync(stream.publish(b"a"))
    stream.log.lost()
    assert stream.join() is not None
    stream.log.missing()
    events = stream.reconnect()
    (lost,) = _of(events, Lost)
    assert isinstance(lost, Lost)
    assert lost.reason is GapReason.TRIMMED
    assert lost.head.epoch == b"epoch000".hex()


def test_missing_place_outside_of_a_resume_decides_nothing() -> None:
    """The start may be beyond the end, too. The verdict of the next connection decides."""
    stream = Stream()
    stream.log.missing()
    stream.live()
    stream.log.missing()
    assert not _of(stream.reconnect(), Lost)


def test_moved_while_live_leads_to_a_fresh_start() -> None:
    stream = Stream().live()
    moved = encode(Envelope(kind=Kind.GENESIS, publisher=OTHER, time_ms=NOW, epoch=b"others..", parent=b"epoch000"))
    events = stream.sync(stream.append(moved))
    assert events == [Moved(GapReason.EPOCH)]
    assert stream.log.phase is Phase.JOINING
    (lost,) = _of(stream.reconnect(), Lost)
    assert isinstance(lost, Lost)
    assert (lost.reason, lost.head.epoch) == (GapReason.EPOCH, b"others..".hex())


def test_impossible_offset_of_an_append_is_suspicious() -> None:
    stream = Stream().live()
    end = stream.log.end
    assert stream.log.appended(end, end + 1)
    assert stream.log.appended(end, None)
    assert not stream.log.appended(end, end)
    events = stream.reconnect()
    assert [event.reason for event in _of(events, Lost) if isinstance(event, Lost)] == [GapReason.EPOCH]


def test_changed_stream_outweighs_a_trimmed_place() -> None:
    stream = Stream().live()
    stream.log.lost()
    assert stream.join() is not None
    assert not stream.log.appended(5, 5)
    stream.log.missing()
    (lost,) = _of(stream.reconnect(), Lost)
    assert isinstance(lost, Lost)
    assert lost.reason is GapReason.EPOCH


def test_lost_proposal_is_repeated_with_the_next_probe() -> None:
    stream = Stream()
    stream.join()
    first = stream.log.feed(0, stream.records[0], lambda: b"first...", NOW)
    assert len(_of(first, Propose)) == 1
    again = stream.log.feed(1, stream.log.next_probe(NOW)[1], lambda: b"second..", NOW)
    assert len(_of(again, Propose)) == 1
    assert not stream.log.is_live


def test_later_probe_replaces_a_lost_verdict_probe() -> None:
    """The stream was set back after the verdict probe, so the probe never arrives."""
    stream = Stream()
    stream.join()
    stream.records.clear()
    stream.append(stream.log.next_probe(NOW)[1])
    stream.sync()
    assert stream.log.is_live


def test_earlier_probe_is_no_verdict() -> None:
    stream = Stream().live()
    stream.log.lost()
    old = stream.append(stream.log.next_probe(NOW)[1])
    start = stream.join()
    assert start is not None
    for offset in range(start, old + 1):
        stream.log.feed(offset, stream.records[offset], lambda: b"x" * 8, NOW)
    assert not stream.log.is_live


def test_receipts_wait_for_the_epoch() -> None:
    """Records of this node that are read before the verdict may belong to an epoch that ends."""
    stream = Stream().live()
    for number in range(1, 4):
        stream.sync(stream.publish(b"a", first=number))
    del stream.records[2:]
    stream.publish(b"mine", publisher=ME)
    events = stream.reconnect()
    (stored,) = _of(events, Stored)
    assert isinstance(stored, Stored)
    assert [receipt.epoch for receipt in stored.receipts] == [b"epoch001".hex()]


def test_key_is_found_only_while_live() -> None:
    stream = Stream().live()
    data = encode(
        Envelope(kind=Kind.RECORDS, publisher=OTHER, time_ms=NOW, first=1, drafts=[Draft("t", b"", 1, 1, "k")])
    )
    stream.sync(stream.append(data))
    assert stream.log.find_key("t", "k", NOW) is not None
    stream.log.lost()
    assert stream.log.find_key("t", "k", NOW) is None


def test_probes_of_this_node_are_events_while_joining() -> None:
    stream = Stream()
    stream.join()
    assert _of(stream.sync(), ProbeSeen) == [ProbeSeen(1)]


def test_feed_before_begin_is_a_defect() -> None:
    with pytest.raises(RuntimeError, match="begin"):
        Stream().log.feed(0, b"", lambda: b"", NOW)


def test_unstored_partition_is_live_and_reports_each_reconnect() -> None:
    log: PartitionLog[str] = PartitionLog(0, ME, PublishQueue(StreamSettings()))
    assert log.begin_unstored() == [Live(again=False)]
    assert log.is_live
    first = log.reading.head
    log.lost()
    assert not log.is_live
    assert log.begin_unstored() == [Lost(reason=GapReason.INTERRUPTED, head=first), Live(again=False)]
