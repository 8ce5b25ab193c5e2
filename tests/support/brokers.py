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
        connecting: Exceptions of the next attempts to connect, in order. Later attempts succeed.
        publishing: Exceptions of the next publishes, in order.
        gate: While it is cleared, publishes wait.
        at_gate: Set when a publish waits at the gate or has passed it.
    """

    capabilities = BrokerCapabilities(cross_process=False, ordering="total", max_payload_bytes=100_000)
    _subscribers: ClassVar[dict[tuple[str, str], list[PlainBroker]]] = defaultdict(list)

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.connecting: list[Exception] = []
        self.publishing: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_gate = asyncio.Event()
        self._queue: asyncio.Queue[Delivery | None] | None = None

    @classmethod
    def from_url(cls, url: BrokerURL) -> PlainBroker:
        super().from_url(url)  # rejects every option
        return cls(url.name)

    async def connect(self) -> None:
        if self.connecting:
            raise self.connecting.pop(0)
        self._queue = asyncio.Queue()

    async def disconnect(self) -> None:
        for subscribers in self._subscribers.values():
            if self in subscribers:
                subscribers.remove(self)
        self.break_off()
        self._queue = None

    async def subscribe(self, channel: str) -> None:
        self._open()
        subscribers = self._subscribers[self.name, channel]
        if self not in subscribers:
            subscribers.append(self)

    async def unsubscribe(self, channel: str) -> None:
        self._open()
        subscribers = self._subscribers[self.name, channel]
        if self in subscribers:
            subscribers.remove(self)

    async def publish(self, channel: str, message: bytes) -> None:
        self._open()
        if len(message) > self.capabilities.max_payload_bytes:
            raise PayloadTooLarge(len(message), self.capabilities.max_payload_bytes)
        self.at_gate.set()
        await self.gate.wait()
        if self.publishing:
            raise self.publishing.pop(0)
        for subscriber in self._subscribers[self.name, channel]:
            subscriber._open().put_nowait(Delivery(channel=channel, payload=message))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        queue = self._open()
        while (delivery := await queue.get()) is not None:
            yield delivery

    def break_off(self) -> None:
        """End the deliveries, like a lost connection."""
        if self._queue is not None:
            self._queue.put_nowait(None)

    def _open(self) -> asyncio.Queue[Delivery | None]:
        if self._queue is None:
            raise BrokerClosed("the plain broker is not connected.", fix="await connect() first")
        return self._queue
