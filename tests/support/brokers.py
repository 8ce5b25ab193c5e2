"""A plain broker that tests control directly."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import ClassVar

from dws_core.plugin import (
    BrokerCapabilities,
    BrokerClosed,
    BrokerInterface,
    BrokerURL,
    Delivery,
    PayloadTooLarge,
)


class PlainBroker(BrokerInterface):
    """A `BrokerInterface` whose nodes share this process.

    Attributes:
        connect_errors: Exceptions of the next attempts to connect, in order. Later attempts succeed.
        publish_errors: Exceptions of the next publishes, in order. Later publishes succeed.
        gate: While it is cleared, publishes wait.
        at_gate: Set when a publish waits at the gate or has passed it.
    """

    capabilities = BrokerCapabilities(cross_process=False, ordering="total", max_payload_bytes=100_000)
    _subscribers: ClassVar[dict[tuple[str, str], list[PlainBroker]]] = defaultdict(list)

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.connect_errors: list[Exception] = []
        self.publish_errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_gate = asyncio.Event()
        self._queue: asyncio.Queue[Delivery | None] | None = None

    @classmethod
    def from_url(cls, url: BrokerURL) -> PlainBroker:
        super().from_url(url)  # rejects every option
        return cls(url.name)

    async def connect(self) -> None:
        if self.connect_errors:
            raise self.connect_errors.pop(0)
        self._queue = asyncio.Queue()

    async def disconnect(self) -> None:
        for subscribers in self._subscribers.values():
            if self in subscribers:
                subscribers.remove(self)
        self.end_deliveries()
        self._queue = None

    async def subscribe(self, channel: str) -> None:
        self._require_queue()
        subscribers = self._subscribers[self.name, channel]
        if self not in subscribers:
            subscribers.append(self)

    async def unsubscribe(self, channel: str) -> None:
        self._require_queue()
        subscribers = self._subscribers[self.name, channel]
        if self in subscribers:
            subscribers.remove(self)

    async def publish(self, channel: str, message: bytes) -> None:
        self._require_queue()
        if len(message) > self.capabilities.max_payload_bytes:
            raise PayloadTooLarge(len(message), self.capabilities.max_payload_bytes)
        self.at_gate.set()
        await self.gate.wait()
        if self.publish_errors:
            raise self.publish_errors.pop(0)
        for subscriber in self._subscribers[self.name, channel]:
            subscriber._require_queue().put_nowait(Delivery(channel=channel, payload=message))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        queue = self._require_queue()
        while (delivery := await queue.get()) is not None:
            yield delivery

    def end_deliveries(self) -> None:
        """End the deliveries, like a lost connection."""
        if self._queue is not None:
            self._queue.put_nowait(None)

    def _require_queue(self) -> asyncio.Queue[Delivery | None]:
        if self._queue is None:
            raise BrokerClosed("the plain broker is not connected.", fix="await connect() first")
        return self._queue
