"""Two nodes on a broker, a load from one to the other, and checks that must hold after any fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final

from support.timeouts import HANG_S, progress_timeout

from dws_core import create_broker
from dws_core.plugin import (
    BrokerError,
    BrokerUnavailable,
    GapReason,
    Head,
    History,
    Layout,
    PublishOutcomeUnknown,
    Receipt,
    Record,
)

HISTORY: Final = History(size=100_000, ttl_s=600)
_DEADLINE_S: Final = 10 * HANG_S
"""Deadline of a publish of a load, longer than a server needs to start on a busy machine."""

_AGAIN_S: Final = 0.5
"""How long an end may take before another one is published. It does not have to be enough."""


class IgnoringSink:
    """A sink that ignores all events."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


class Node:
    """One broker, and the events of partitions 0 and 1 that its node received."""

    def __init__(self, url: str, layout: Layout, number: int) -> None:
        self.broker = create_broker(url)
        self.layout = layout
        self.received: dict[int, list[tuple[int | None, bytes]]] = {0: [], 1: []}
        self.losses: list[GapReason] = []
        self.received_before_gap = {0: 0, 1: 0}  # number of records received before the last gap
        self.heads: dict[int, Head] = {}  # where the log continued after it
        self.states: list[str] = []
        self.changed = asyncio.Event()
        self.id = bytes([number]) * 8

    async def start(self, *, patience_s: float = 0.0) -> None:
        """Start. Repeat a failed start for some seconds, as a manager does."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while True:
            try:
                await self.broker.start(node=self.id, layout=self.layout, sink=self)
                break
            except BrokerUnavailable:
                if loop.time() >= until:
                    raise
        await self.broker.set_interest(frozenset({0, 1}))

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Record]) -> None:
        self.received[partition] += [(record.offset, record.payload) for record in records]
        self.changed.set()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.losses.append(reason)
        self.received_before_gap[partition] = len(self.received[partition])
        self.heads[partition] = head
        self.changed.set()

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """Ignore control messages. No test sends any."""

    def on_state(self, state: str, detail: str) -> None:
        self.states.append(state)
        self.changed.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened. Fail if nothing is received for too long."""
        counts = self._counts
        async with progress_timeout() as progress:
            while not happened():
                self.changed.clear()
                await self.changed.wait()
                if self._counts != counts:
                    progress()
                counts = self._counts

    @property
    def _counts(self) -> tuple[int, ...]:
        """The numbers of received items. Heartbeats do not count, because they never stop."""
        return (*map(len, self.received.values()), len(self.losses), len(self.states))


@asynccontextmanager
async def two_nodes(url: str, layout: Layout, *, patience_s: float = 0.0) -> AsyncIterator[tuple[Node, Node]]:
    """Start two nodes that follow both partitions. Repeat a failed start for some seconds."""
    nodes = Node(url, layout, 1), Node(url, layout, 2)
    for node in nodes:
        await node.start(patience_s=patience_s)
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.broker.stop(drain_s=0.1)


class Load:
    """Publishes numbers on both partitions until `stopping` is set.

    Args:
        node: The node that publishes.
        name: Prefix of the payloads.
    """

    def __init__(self, node: Node, name: bytes = b"load") -> None:
        self.name = name
        self.node = node
        self.acked: dict[int, list[bytes]] = {0: [], 1: []}
        self.receipts: dict[int, list[tuple[str, int, bytes]]] = {0: [], 1: []}
        self.unknown: set[bytes] = set()
        self.refused = 0
        self.stopping = False
        self.progress = asyncio.Event()

    async def run(self, partition: int) -> None:
        number = 0
        while not self.stopping:
            payloads = [b"%s %d-%d" % (self.name, partition, number + n) for n in range(20)]
            number += 20
            futures = [
                self.node.broker.publish(partition, f"t/{partition}", payload, history=HISTORY, deadline_s=_DEADLINE_S)
                for payload in payloads
            ]
            for payload, result in zip(payloads, await asyncio.gather(*futures, return_exceptions=True), strict=True):
                self._count(partition, payload, result)

    def _count(self, partition: int, payload: bytes, result: Receipt | BaseException) -> None:
        if isinstance(result, Receipt):
            self.acked[partition].append(payload)
            self.receipts[partition].append((result.epoch, result.offset or 0, payload))
        elif isinstance(result, PublishOutcomeUnknown):
            self.unknown.add(payload)
        elif isinstance(result, BrokerError):
            self.refused += 1
        else:
            raise result
        self.progress.set()

    async def wait_for_acks(self, count: int) -> None:
        """Wait until this many more messages are acknowledged."""
        goal = self._stored + count
        async with progress_timeout() as progress:
            while (stored := self._stored) < goal:
                self.progress.clear()
                await self.progress.wait()
                if self._stored > stored:
                    progress()

    @property
    def _stored(self) -> int:
        return sum(map(len, self.acked.values()))


async def wait_for_end(sender: Node, listener: Node) -> None:
    """Publish end markers until the listener receives one, because a marker before a gap may be lost."""
    for partition in (0, 1):
        async with asyncio.timeout(HANG_S):
            for number in count():
                end = b"end %d" % number
                await sender.broker.publish(partition, "end", end, history=HISTORY, deadline_s=HANG_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_S):
                        await listener.until(
                            lambda p=partition, e=end: any(received == e for _, received in listener.received[p])
                        )
                    break


def messages(listener: Node, partition: int, name: bytes = b"load") -> list[bytes]:
    """Return the received messages of a load."""
    return [payload for _, payload in listener.received[partition] if payload.startswith(name + b" ")]


def check(load: Load, listener: Node) -> None:
    """Check that every acknowledged message arrived once and in order."""
    for partition in (0, 1):
        received = messages(listener, partition, load.name)
        offsets = [offset or 0 for offset, _ in listener.received[partition]]
        assert offsets == sorted(set(offsets)), "offsets must be in order and unique"
        assert len(received) == len(set(received)), "no message may be repeated"
        assert [payload for payload in received if payload not in load.unknown] == load.acked[partition], (
            "no acknowledged message may be missing"
        )


def check_after_last_gap(load: Load, listener: Node) -> None:
    """Check that no message arrived twice or out of order, and that none is missing after the last gap."""
    for partition in (0, 1):
        received = messages(listener, partition, load.name)
        assert received == sorted(set(received), key=_number), "messages must be in order and unique"
        due = load.acked[partition]
        if (head := listener.heads.get(partition)) is not None:
            receipts = load.receipts[partition]
            due = [payload for epoch, offset, payload in receipts if epoch == head.epoch and offset > head.offset]
        after_gap = {payload for _, payload in listener.received[partition][listener.received_before_gap[partition] :]}
        assert [payload for payload in received if payload in after_gap and payload not in load.unknown] == due


def _number(payload: bytes) -> int:
    return int(payload.rpartition(b"-")[2])
