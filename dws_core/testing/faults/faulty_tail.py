"""A sink between a broker and its node, which can drop or delay events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from dws_core.plugin import (
    BrokerError,
    BrokerState,
    GapReason,
    Head,
    LogBroker,
    Offset,
    ReadResult,
    ReadSpan,
    Record,
    TailSink,
)

_UNLIMITED: Final = 2**31

Call = Callable[[TailSink], None]


class FaultyTail:
    """A `TailSink` that wraps another one. It tracks positions, so that it can filter late records after a cut."""

    def __init__(self) -> None:
        self._sink: TailSink | None = None
        self._heads: dict[int, Head] = {}
        self._received: dict[int, Head] = {}  # the positions of the node when the cut began
        self._cuts = 0
        self._holds = 0
        self._held: list[Call] = []
        self._stop_callbacks: list[Callable[[], None]] = []

    # -- called by the FaultyBroker

    def start(self, sink: TailSink) -> None:
        """Forward events to this sink."""
        self._sink, self._heads, self._held = sink, {}, []

    def release_all(self) -> None:
        """Run the stop callbacks and deliver all held events, because the broker is about to stop."""
        callbacks, self._stop_callbacks = self._stop_callbacks, []
        for call in callbacks:
            call()
        self._holds = 0
        self._flush()

    def on_stop(self, call: Callable[[], None]) -> None:
        """Call a function when the broker stops."""
        self._stop_callbacks.append(call)

    def stop(self) -> None:
        """Forward no more events."""
        self._sink, self._heads = None, {}

    def set_partitions(self, partitions: frozenset[int]) -> None:
        """Forget all partitions that the node no longer tails."""
        self._heads = {number: head for number, head in self._heads.items() if number in partitions}

    def set_baselines(self, heads: Mapping[int, Head]) -> None:
        """Store the baselines of new partitions."""
        for number, head in heads.items():
            self._heads.setdefault(number, head)
            self._received.setdefault(number, head)

    def cut(self) -> None:
        """Drop all events from now on."""
        self._cuts += 1
        if self._cuts == 1:
            self._received = dict(self._heads)
        self._deliver(lambda sink: sink.on_state("degraded", "cut off by a FaultyBroker"))

    async def reconnect(self, reason: GapReason, broker: LogBroker) -> None:
        """End the cut. Continue at the current ends of the log, and drop earlier records that arrive late."""
        heads = await broker.heads(list(self._heads)) if self._heads else {}
        self._cuts -= 1
        if self._cuts == 0:
            self._heads = dict(heads)
            for head in heads.values():
                self._deliver(_discontinuity(head, reason))
            self._deliver_live()

    async def catch_up(self, broker: LogBroker) -> None:
        """End the cut. Deliver the missed records from the log, then the events that arrive during this call."""
        self._cuts -= 1
        if self._cuts:
            return
        self._holds += 1
        held, self._held = self._held, []
        missed = [await _missed(broker, self._received.get(n, head), head) for n, head in tuple(self._heads.items())]
        self._held = [*held, *missed, *self._held]
        self._holds = max(0, self._holds - 1)
        if self._holds == 0:
            self._flush()
        self._deliver_live()

    def hold(self) -> None:
        """Hold all events from now on."""
        self._deliver(lambda sink: sink.on_state("degraded", "frozen by a FaultyBroker"))
        self._holds += 1

    def release(self) -> None:
        """Deliver the held events."""
        self._holds = max(0, self._holds - 1)
        if self._holds == 0:
            self._flush()
            self._deliver(lambda sink: sink.on_state("live", "thawed by a FaultyBroker"))

    # -- called by the wrapped broker

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        known = self._heads.get(partition)
        if known is not None and known.epoch == epoch and lo < known.offset:  # sent before the cut ended
            if hi <= known.offset:
                return
            lo, records = known.offset, [r for r in records if r.offset is None or r.offset > known.offset]
        self._heads[partition] = Head(partition=partition, epoch=epoch, offset=hi)
        self._deliver_unless_cut(lambda sink: sink.on_records(partition, epoch, lo, hi, records))

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self._heads[partition] = head
        self._deliver_unless_cut(lambda sink: sink.on_discontinuity(partition, reason, head))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        self._deliver_unless_cut(lambda sink: sink.on_control(sender, payload))

    def on_state(self, state: BrokerState, detail: str) -> None:
        if state == "closed" or not self._cuts:
            self._deliver(lambda sink: sink.on_state(state, detail))

    def _deliver_live(self) -> None:
        self._deliver(lambda sink: sink.on_state("live", "reconnected by a FaultyBroker"))

    def _deliver_unless_cut(self, call: Call) -> None:
        if not self._cuts:
            self._deliver(call)

    def _deliver(self, call: Call) -> None:
        if self._holds:
            self._held.append(call)
        elif self._sink is not None:
            call(self._sink)

    def _flush(self) -> None:
        held, self._held = self._held, []
        for call in held:
            self._deliver(call)


def _discontinuity(head: Head, reason: GapReason) -> Call:
    return lambda sink: sink.on_discontinuity(head.partition, reason, head)


async def _missed(broker: LogBroker, since: Head, until: Head) -> Call:
    """Return the event that takes a node from one position to another."""
    if since.epoch != until.epoch:
        return _discontinuity(until, GapReason.EPOCH)
    number, lo, hi = until.partition, since.offset, until.offset
    span = ReadSpan(
        partition=number,
        epoch=until.epoch,
        since=lo,
        until=hi,
        topics=_every_topic,
        limit=_UNLIMITED,
        max_bytes=_UNLIMITED,
    )
    try:
        result = await broker.read(span)
    except BrokerError:
        result = ReadResult(gap=GapReason.TRIMMED)
    if result.gap is not None:
        return _discontinuity(until, result.gap)
    records = result.records
    return lambda sink: sink.on_records(number, until.epoch, lo, hi, records)


def _every_topic(topic: str) -> bool:
    return True
