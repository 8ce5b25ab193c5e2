"""`RedisBroker`: what the core calls."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Self

from dws_core.plugin import (
    BrokerClosed,
    BrokerError,
    BrokerURL,
    Head,
    History,
    Layout,
    LogBroker,
    ReadResult,
    ReadSpan,
    Receipt,
    TailSink,
    partition_of,
)
from dws_redis import CAPABILITIES
from dws_redis._node import Node
from dws_redis._settings import Settings


class RedisBroker(LogBroker):
    """Partition logs on a Redis or Valkey server, on one that sentinels choose, or on a cluster.

    Args:
        settings: Where, and how.
    """

    capabilities = CAPABILITIES

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.partitions = settings.partitions  # type: ignore[misc]  # this object's own
        self.capabilities = replace(  # type: ignore[misc]
            CAPABILITIES,
            max_payload_bytes=settings.options.max_payload_bytes,
            idle_ops_per_s=CAPABILITIES.idle_ops_per_s * (settings.partitions if settings.kind == "cluster" else 1),
        )
        self._node: Node | None = None

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from a URL, with the options of `RedisOptions`.

        Raises:
            InvalidBrokerURL: It does not say where Redis is, or has options that are unknown or cannot work.
        """
        return cls(Settings.read(url))

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect; return when publishing works."""
        if self._node is not None:
            raise BrokerError("this Redis broker is started already.", fix="use one broker object for each node")
        started = Node(self._settings, node, layout, sink)
        await started.start()
        self._node = started

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Send what waits for at most `drain_s` seconds, then close all connections."""
        if (node := self._node) is None:
            return
        self._node = None
        await node.stop(drain_s)

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these partitions."""
        return await self._started().follow(partitions)

    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Store and send in one script, together with what else is published in this tick."""
        if self._node is None:
            future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            future.set_exception(_closed())
            return future
        return self._node.publisher.publish(partition, topic, payload, history, key, deadline_s)

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read what was missed, or say why it cannot be had."""
        return await self._started().reader.read(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Say where the logs end now."""
        return await self._started().reader.heads(partitions)

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the channel."""
        await self._started().send_control(payload)

    async def forget(self, topic: str) -> None:
        """Drop a topic's records; that they were there stays known."""
        node = self._started()
        partition = partition_of(topic, node.names.layout)
        await node.commands(partition).call("DEL", node.names.base(partition) + "h:" + topic)

    def _started(self) -> Node:
        if self._node is None:
            raise _closed()
        return self._node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.shown} {'started' if self._node else 'stopped'}>"


def _closed() -> BrokerClosed:
    return BrokerClosed("the Redis broker is not started.", fix="call start() first, and nothing after stop()")
