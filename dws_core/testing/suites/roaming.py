"""Clients that go from node to node, as the core serves them, in a form so small that it is plainly right.

The rule: a client that comes with a place takes the node's watermark; the history serves what lies up to it, the tail
what comes behind it. Its place moves on with the watermark, also where nothing for it came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from dws_core.plugin import GapReason, Head, Offset, ReadResult, Record
from dws_core.testing.suites.peers import LogPeer, RecordingSink

Sent: TypeAlias = tuple[int, Offset, str, bytes]
"""A record as its publisher knows it: partition, offset, topic, payload."""


class RoamingSink(RecordingSink):
    """A node with clients. It can be made slow: what is held is heard by nobody until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Roamer] = []
        self._holding = False
        self._held: list[Callable[[], None]] = []

    def hold(self) -> None:
        """Be slow."""
        self._holding = True

    def release(self) -> None:
        """Hear what was held, and everything that follows."""
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
    """A client.

    Args:
        topics: What it wants: topics, or a function as for `LogBroker.read`.

    Attributes:
        cursor: Its place in each partition.
        gaps: What it was told about losses.
        hops: How often it has come to a node.
        recovered: How many messages it was given that came while it was away.
        wants: Whether it wants the messages of a topic.
    """

    def __init__(self, topics: Collection[str] | Callable[[str], bool]) -> None:
        self.cursor: dict[int, tuple[str, Offset]] = {}
        self.gaps: list[GapReason] = []
        self.hops = 0
        self.recovered = 0
        self._topics = topics
        self.wants: Callable[[str], bool] = topics if callable(topics) else topics.__contains__
        self._base: dict[int, Offset] = {}  # where its last answer, or gap, put it
        self._got: dict[int, list[tuple[Offset, bytes]]] = {}
        self._sink: RoamingSink | None = None
        self._held: list[Callable[[], None]] | None = None  # while the history is being read

    @property
    def count(self) -> int:
        """How many messages it has."""
        return sum(map(len, self._got.values()))

    async def attach(self, peer: LogPeer) -> None:
        """Come to a node with the cursor; cancelled, it has got nothing."""
        sink = peer.sink
        assert isinstance(sink, RoamingSink)
        self._sink, self._held = sink, []
        sink.clients.append(self)
        marks = sink.positions
        found = {partition: await self._missed(peer, partition, *mark) for partition, mark in marks.items()}
        for partition, result in found.items():
            epoch, offset = marks[partition]
            if result.gap is not None:
                self._rebase(partition, epoch, offset, result.gap)
            else:
                self.cursor.setdefault(partition, (epoch, offset))
                self._base.setdefault(partition, offset)
                self.recovered += len(result.records)
                self._take(partition, epoch, offset, result.records)
        held, self._held = self._held, None
        for call in held:
            call()
        self.hops += 1

    def detach(self) -> None:
        """Leave the node."""
        if self._sink is not None:
            self._sink.clients.remove(self)
        self._sink = self._held = None

    def on_records(self, partition: int, epoch: str, hi: Offset, records: Sequence[Record]) -> None:
        """Take what the node's tail brings."""
        self._run_in_order(lambda: self._take(partition, epoch, hi, records))

    def on_discontinuity(self, partition: int, reason: GapReason, epoch: str, offset: Offset) -> None:
        """Take a discontinuity of the node's tail."""
        self._run_in_order(lambda: self._rebase(partition, epoch, offset, reason))

    def check(self, sent: Sequence[Sent]) -> None:
        """Compare with what was published: since its base it must have all that it wants, once, in order."""
        for partition, base in self._base.items():
            wanted = sorted(
                (o, data) for p, o, topic, data in sent if p == partition and o > base and self.wants(topic)
            )
            assert self._got.get(partition, []) == wanted, f"partition {partition} from {base}, gaps {self.gaps}"

    def _run_in_order(self, call: Callable[[], None]) -> None:
        if self._held is None:
            call()
        else:
            self._held.append(call)

    async def _missed(self, peer: LogPeer, partition: int, epoch: str, watermark: Offset) -> ReadResult:
        own_epoch, since = self.cursor.get(partition, (epoch, watermark))
        if own_epoch == epoch and since >= watermark:  # a quicker node has served it
            return ReadResult()
        return await peer.read_after(self._topics, since, epoch=own_epoch, until=watermark, partition=partition)

    def _take(self, partition: int, epoch: str, hi: Offset, records: Sequence[Record]) -> None:
        _, last = self.cursor[partition]
        for record in records:
            if record.offset is not None and record.offset > last and self.wants(record.topic):
                self._got.setdefault(partition, []).append((record.offset, record.payload))
        self.cursor[partition] = (epoch, max(last, hi))

    def _rebase(self, partition: int, epoch: str, offset: Offset, reason: GapReason) -> None:
        self.gaps.append(reason)
        self.cursor[partition] = (epoch, offset)
        self._base[partition] = offset
        self._got[partition] = []
