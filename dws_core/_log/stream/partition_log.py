"""One partition as a node sees it: its tail, its publishes, and the verdict after each new connection.

A new connection begins with a probe that this node appends. Its offset decides: above everything seen, the tail goes on
where it was, if the last envelope is still there. Otherwise the stream was set back or replaced, and the node reads it
again like a node that starts. If nobody has started a new epoch by then, this node does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, TypeVar

from dws_core._log.records import GapReason, Receipt
from dws_core._log.stream.envelope import NO_EPOCH, Draft, Envelope, Kind, encode
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.lane import Lane
from dws_core._log.stream.publishing import Flight, PublishQueue
from dws_core._log.stream.tail import Moved, ProbeSeen, Stored, StreamTail, TailEvent
from dws_core._log.stream.wire import StreamBounds
from dws_core._log.tail import Advance, Lost

T = TypeVar("T")

_NO_STREAM: Final = Claim(NO_EPOCH, 0)
"""The epoch of a partition that is not stored."""


class Phase(Enum):
    """How far a partition is on its connection: not verified, waiting for an epoch that was proposed, or live."""

    JOINING = "joining"
    PROPOSING = "proposing"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Propose:
    """Append this envelope: it starts an epoch."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Live:
    """The partition is verified. Publishing may begin.

    Attributes:
        again: Whether the stream was read again from its recent past.
    """

    again: bool


PartitionEvent = TailEvent | Propose | Live


@dataclass(slots=True)
class PartitionLog(Generic[T]):
    """One partition.

    Attributes:
        number: Number of the partition.
        publisher: Id of this node.
        queue: Its publishes with history, or all if the wire cannot send without storing.
        lane: Its records without history, if the wire can.
        max_skip: See `WireInfo.max_skip`.
        stores: See `WireInfo.stores`.
        tail: What was read of the stream, None before the first connection.
        phase: How far it is on its connection.
    """

    number: int
    publisher: bytes
    queue: PublishQueue[T]
    max_skip: int | None = 0
    stores: bool = True
    tail: StreamTail | None = None
    phase: Phase = Phase.JOINING
    _probes: int = 0
    _verdict_probe: int = 0
    _identity: str | None = None
    _moved: Moved | None = None  # why the stream must be read again; the node is not told yet
    _suspect: bool = False  # no epoch that this node has seen before may go on
    _epochs: list[str] = field(default_factory=list)  # in which this node was live
    _fresh: bool = True
    _early: list[Stored] = field(default_factory=list)  # seen before the epoch was certain
    lane: Lane[T] = field(init=False)

    def __post_init__(self) -> None:
        self.lane = Lane(self.publisher, PublishQueue(self.queue.settings))

    @property
    def is_live(self) -> bool:
        """Whether the partition is verified on the current connection."""
        return self.phase is Phase.LIVE

    @property
    def reading(self) -> StreamTail:
        """The tail of a partition that was begun."""
        if self.tail is None:
            raise RuntimeError("begin() comes first")
        return self.tail

    def next_probe(self, now_ms: int, *, verdict: bool = False) -> tuple[int, bytes]:
        """Return the number and the data of a new probe. The verdict probe claims no epoch."""
        self._probes += 1
        if verdict:
            self._verdict_probe = self._probes
        claim = None if verdict else self._claim()
        return self._probes, self._encode(Kind.PROBE, now_ms, claim, first=self._probes)

    def control(self, now_ms: int, payload: bytes) -> bytes:
        """Return an envelope with a control message."""
        return self._encode(Kind.CONTROL, now_ms, self._claim(), drafts=[Draft("", payload, 0, 0)])

    def records(self, flight: Flight[T]) -> bytes:
        """Return the envelope of a flight."""
        return self._encode(Kind.RECORDS, flight.time_ms, self._claim(), first=flight.first, drafts=flight.drafts)

    def judge(self, probe_offset: int, bounds: StreamBounds | None) -> int | None:
        """Return where to follow from, or None if the stream must be read like by a node that starts.

        Args:
            probe_offset: Offset of the verdict probe.
            bounds: The ends of the stream, if the broker can tell.
        """
        identity, self._identity = self._identity, bounds.identity if bounds else self._identity
        if self.tail is None or not self.tail.live:
            return None
        if probe_offset <= self.tail.offset or identity not in {None, self._identity}:
            self._note(Moved(GapReason.EPOCH, suspect=True))
        if self._moved is not None:
            return None
        self._fresh = False
        return self.tail.resume()

    @property
    def queues(self) -> tuple[PublishQueue[T], PublishQueue[T]]:
        """Both queues."""
        return self.queue, self.lane.queue

    def find_key(self, topic: str, key: str, now_ms: int) -> Receipt | None:
        """Return the receipt for a repeat of a key, if the partition is live and contains the original."""
        if self.tail is None or not self.is_live:
            return None
        return self.tail.find_key(topic, key, now_ms) or self.lane.find_key(topic, key, now_ms, self.tail.epoch)

    def begin(self, claim: Claim | None) -> None:
        """Read the stream like a node that starts.

        Args:
            claim: The verified epoch where reading begins, or None.
        """
        self._fresh = True
        self._early.clear()
        self.lane.clear()
        self.tail = StreamTail(self.number, self.publisher, claim, max_skip=self.max_skip)

    def begin_unstored(self) -> list[PartitionEvent]:
        """Go live on a broker that stores nothing. What was sent before this connection is lost."""
        is_first = self.tail is None
        self.begin(_NO_STREAM)
        self.phase, self.reading.live = Phase.LIVE, True
        lost = [] if is_first else [Lost(reason=GapReason.INTERRUPTED, head=self.reading.head)]
        return [*lost, Live(again=False)]

    def feed(self, offset: int, data: bytes, new_epoch: Callable[[], bytes], now_ms: int) -> list[PartitionEvent]:
        """Read the next envelope.

        Args:
            offset: Its offset.
            data: Its data.
            new_epoch: Returns 8 random bytes: the epoch to propose if the stream needs one.
            now_ms: The time.
        """
        tail = self.reading
        events: list[PartitionEvent] = []
        for event in tail.feed(offset, data):
            if isinstance(event, Moved):
                self._note(event)
                self.phase = Phase.JOINING
            if isinstance(event, Stored) and not tail.live:
                self._early.append(event)
            elif tail.live or not isinstance(event, Advance | Lost | Moved):
                events.append(event)
            # The verdict probe, or a later one: the stream may have been set back in between.
            if isinstance(event, ProbeSeen) and event.number >= self._verdict_probe and not self.is_live:
                self.phase = Phase.PROPOSING  # again with each probe, because a proposal may be lost
                events += self._propose(new_epoch, now_ms)
        return [*events, *(self.lane.due(tail) if tail.live else ()), *self._settle()]

    def feed_lane(self, envelope: Envelope) -> list[PartitionEvent]:
        """Read an envelope that arrived outside the stream. It is ignored if the node has no baseline yet."""
        return [*self.lane.feed(envelope, self.tail)] if self.tail and self.tail.live else []

    def appended(self, end: int, offset: int | None) -> bool:
        """Compare the offset of an append with the end of the tail when it was sent. Return False if it is impossible."""
        if offset is None or offset > end:
            return True
        self._note(Moved(GapReason.EPOCH, suspect=True))
        return False

    @property
    def end(self) -> int:
        """Stream offset of the last envelope that was read, -1 before the first."""
        return self.tail.offset if self.tail else -1

    def missing(self) -> None:
        """Note that the broker does not have the place that the tail is at.

        If the verdict probe was above it, the place was removed. Otherwise the verdict of the next connection decides.
        """
        if self.tail is not None and self.tail.is_resuming:
            self._note(Moved(GapReason.TRIMMED))

    def lost(self) -> None:
        """Note that the connection is lost."""
        self.phase = Phase.JOINING
        for queue in self.queues:
            queue.closed()

    def _claim(self) -> Claim | None:
        return self.tail.claim if self.tail and self.is_live else None

    def _note(self, moved: Moved) -> None:
        """Remember why the stream must be read again, until the node is told."""
        if self._moved is None or moved.reason is GapReason.EPOCH:
            self._moved = moved
        self._suspect = self._suspect or moved.suspect

    def _needs_epoch(self) -> bool:
        epoch = self.reading.epoch
        return not epoch or (self._suspect and epoch in self._epochs)

    def _propose(self, new_epoch: Callable[[], bytes], now_ms: int) -> list[PartitionEvent]:
        if not self._needs_epoch():
            return []
        parent = self.reading.claim
        genesis = Envelope(
            kind=Kind.GENESIS,
            publisher=self.publisher,
            time_ms=now_ms,
            epoch=new_epoch(),
            parent=parent.epoch if parent else NO_EPOCH,
        )
        return [Propose(encode(genesis))]

    def _settle(self) -> list[PartitionEvent]:
        if self.phase is not Phase.PROPOSING or self._needs_epoch():
            return []
        tail = self.reading
        events: list[PartitionEvent] = [] if tail.live else [*self._baseline(tail), *self._late(tail.epoch)]
        self.phase, self._suspect, self._moved, tail.live = Phase.LIVE, False, None, True
        return [*events, Live(self._fresh)]

    def _late(self, epoch: str) -> list[Stored]:
        """Return the receipts of what was seen before the epoch was certain. Their places are valid in it."""
        early, self._early = self._early, []
        return [Stored(event.first, [_in_epoch(receipt, epoch) for receipt in event.receipts]) for event in early]

    def _baseline(self, tail: StreamTail) -> list[PartitionEvent]:
        """Give the node a new baseline, unless it has none yet."""
        if not self._epochs:
            self._epochs.append(tail.epoch)
            return []
        reason = GapReason.TRIMMED if tail.epoch == self._epochs[-1] else GapReason.EPOCH
        if reason is GapReason.EPOCH:
            self._epochs.append(tail.epoch)
        return [Lost(reason=reason, head=tail.head)]

    def _encode(
        self, kind: Kind, now_ms: int, claim: Claim | None, *, first: int = 0, drafts: Sequence[Draft] = ()
    ) -> bytes:
        envelope = Envelope(
            kind=kind,
            publisher=self.publisher,
            time_ms=now_ms,
            epoch=claim.epoch if claim else NO_EPOCH,
            began=claim.began if claim else 0,
            first=first,
            previous=self.queue.acknowledged,
            drafts=drafts,
        )
        return encode(envelope)


def _in_epoch(receipt: Receipt, epoch: str) -> Receipt:
    return Receipt(epoch=epoch, offset=receipt.offset, duplicate=receipt.duplicate)
