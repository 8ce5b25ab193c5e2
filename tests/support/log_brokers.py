"""Brokers that tests can slow down, and that count their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

from dws_memory import MemoryBroker

from dws_core.plugin import (
    BrokerInterface,
    BrokerUnavailable,
    Delivery,
    Head,
    Layout,
    ReadResult,
    ReadSpan,
    Record,
    TailSink,
)


class GatedSink:
    """Passes the events of a broker to its node, or keeps them until the gate opens."""

    def __init__(self, sink: TailSink) -> None:
        self._sink = sink
        self._held: list[Callable[[], None]] = []
        self.open = True

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        self._forward(lambda: self._sink.on_records(partition, epoch, lo, hi, records))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._forward(lambda: getattr(self._sink, name)(*arguments))

    def _forward(self, call: Callable[[], None]) -> None:
        if self.open:
            call()
        else:
            self._held.append(call)

    def close_gate(self) -> None:
        """Keep all events from now on."""
        self.open = False

    def open_gate(self) -> None:
        """Open the gate, and pass on the kept events."""
        self.open = True
        kept, self._held = self._held, []
        for call in kept:
            call()


class SlowBroker(MemoryBroker):
    """A memory broker whose tail and reads can be blocked. Reads can also fail, and they are counted."""

    sink: GatedSink

    def __init__(self, name: str = "", *, partitions: int = 1) -> None:
        super().__init__(name)
        self.partitions = partitions  # type: ignore[misc]  # overrides the class attribute
        self.reads: list[ReadSpan] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reading = asyncio.Event()
        self.unavailable = False

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        self.sink = GatedSink(sink)
        await super().start(node=node, layout=layout, sink=self.sink)

    async def read(self, span: ReadSpan) -> ReadResult:
        self.reads.append(span)
        self.reading.set()
        await self.may_read.wait()
        if self.unavailable:
            raise BrokerUnavailable("the test makes this broker unavailable.")
        return await super().read(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        if self.unavailable:
            raise BrokerUnavailable("the test makes this broker unavailable.")
        return await super().heads(partitions)


class PlainBroker(BrokerInterface):
    """A broker without history, for one node."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Delivery | None] = asyncio.Queue()

    async def connect(self) -> None:
        """Do nothing, because there is no server."""

    async def disconnect(self) -> None:
        """End the deliveries."""
        self._queue.put_nowait(None)

    async def subscribe(self, channel: str) -> None:
        """Do nothing, because there is one channel."""

    async def unsubscribe(self, channel: str) -> None:
        """Do nothing, because there is one channel."""

    async def publish(self, channel: str, message: Any) -> None:
        """Deliver to this node only."""
        self._queue.put_nowait(Delivery(channel=channel, payload=message))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Iterate until disconnected."""
        while (delivery := await self._queue.get()) is not None:
            yield delivery
