"""Clients that move from node to node: a model of the core's recovery, small enough to be obviously correct.

A client attaches to a node with its cursor and uses the node's watermark as the boundary. It reads the records up to
the watermark from the history, and receives the records after it from the tail. Its cursor advances with the watermark,
even if no record is for this client.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from dws_core.plugin import GapReason, Head, Offset, ReadResult, Record
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.recording_sink import RecordingSink

Sent: TypeAlias = tuple[int, Offset, str, bytes]
"""A published record: partition, offset, topic, payload."""


class RoamingSink(RecordingSink):
    """The sink of a node with clients. It can hold events back, to simulate a slow node."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Roamer] = []
        self._holding = False
        self._held: list[Callable[[], None]] = []

    def hold(self) -> None:
        """Hold all events from now on."""
        self._holding = True

    def release(self) -> None:
        """Process the held events, and all later ones immediately."""
        self._holding = False
        held, self._held = self._held, []
        for call in held:
            call()

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        if self._holding:
            self._held.append(lambda: self.on_records(partition, epoch, lo, hi, records))
            return
        super().on_records(partition, epoch, lo, hi, records)
        for client in tuple(self.clients):
            client.on_records(partition, epoch, hi, records)

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        if self._holding:
            self._held.append(lambda: self.on_discontinuity(partition, reason, head))
            return
        super().on_discontinuity(partition, reason, head)
        for client in tuple(self.clients):
            client.on_discontinuity(partition, reason, head.epoch, head.offset)


class Roamer:
    """A client that moves from node to node.

    Args:
        topics: The wanted topics, or a function as for `LogBroker.read`.

    Attributes:
        cursor: Epoch and offset in each partition.
        gaps: Reasons of the received gaps.
        hops: Number of times that it has attached to a node.
        recovered: Number of messages that it has read from the history.
        wants: Function that returns whether it wants the messages of a topic.
    """

    def __init__(self, topics: Collection[str] | Callable[[str], bool]) -> None:
        self.cursor: dict[int, tuple[str, Offset]] = {}
        self.gaps: list[GapReason] = []
        self.hops: int = 0
        self.recovered: int = 0
        self._topics = topics
        self.wants: Callable[[str], bool] = topics if callable(topics) else topics.__contains__
        self._base: dict[int, Offset] = {}  # first position, or that of the last gap
        self._received: dict[int, list[tuple[Offset, bytes]]] = {}
        self._sink: RoamingSink | None = None
        self._held: list[Callable[[], None]] | None = None  # events that arrive while it reads the history

    @property
    def count(self) -> int:
        """The number of received messages."""
        return sum(map(len, self._received.values()))

    async def attach(self, peer: LogPeer) -> None:
        """Attach to a node with the cursor. If the call is cancelled, it has received nothing."""
        sink = peer.sink
        assert isinstance(sink, RoamingSink)
        self._sink, self._held = sink, []
        sink.clients.append(self)
        marks = sink.positions
        found = {partition: await self._read_missed(peer, partition, *mark) for partition, mark in marks.items()}
        for partition, result in found.items():
            epoch, offset = marks[partition]
            if result.gap is not None:
                self._rebase(partition, epoch, offset, result.gap)
            else:
                self.cursor.setdefault(partition, (epoch, offset))
                self._base.setdefault(partition, offset)
                self.recovered += len(result.records)
                self._add(partition, epoch, offset, result.records)
        held, self._held = self._held, None
        for call in held:
            call()
        self.hops += 1

    def detach(self) -> None:
        """Detach from the node."""
        if self._sink is not None:
            self._sink.clients.remove(self)
        self._sink = self._held = None

    def on_records(self, partition: int, epoch: str, hi: Offset, records: Sequence[Record]) -> None:
        """Receive records from the node's tail."""
        self._run_in_order(lambda: self._add(partition, epoch, hi, records))

    def on_discontinuity(self, partition: int, reason: GapReason, epoch: str, offset: Offset) -> None:
        """Receive a discontinuity from the node's tail."""
        self._run_in_order(lambda: self._rebase(partition, epoch, offset, reason))

    def check(self, sent: Sequence[Sent]) -> None:
        """Check that it has received all wanted records after its base, once and in order."""
        for partition, base in self._base.items():
            wanted = sorted(
                (o, data) for p, o, topic, data in sent if p == partition and o > base and self.wants(topic)
            )
            assert self._received.get(partition, []) == wanted, f"partition {partition} from {base}, gaps {self.gaps}"

    def _run_in_order(self, call: Callable[[], None]) -> None:
        if self._held is None:
            call()
        else:
            self._held.append(call)

    async def _read_missed(self, peer: LogPeer, partition: int, epoch: str, watermark: Offset) -> ReadResult:
        own_epoch, since = self.cursor.get(partition, (epoch, watermark))
        if own_epoch == epoch and since >= watermark:  # a faster node has already delivered these
            return ReadResult()
        return await peer.read_after(self._topics, since, epoch=own_epoch, until=watermark, partition=partition)

    def _add(self, partition: int, epoch: str, hi: Offset, records: Sequence[Record]) -> None:
        _, last = self.cursor[partition]
        for record in records:
            if record.offset is not None and record.offset > last and self.wants(record.topic):
                self._received.setdefault(partition, []).append((record.offset, record.payload))
        self.cursor[partition] = (epoch, max(last, hi))

    def _rebase(self, partition: int, epoch: str, offset: Offset, reason: GapReason) -> None:
        self.gaps.append(reason)
        self.cursor[partition] = (epoch, offset)
        self._base[partition] = offset
        self._received[partition] = []
