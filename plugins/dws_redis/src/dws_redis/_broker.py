"""`RedisBroker`: the interface that the core calls."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Mapping
from dataclasses import replace
from typing import Self

from dws_core.plugin import (
    BrokerClosed,
    BrokerError,
    BrokerURL,
    ConfigurationError,
    Head,
    History,
    Layout,
    LogBroker,
    ReadResult,
    ReadSpan,
    Receipt,
    TailSink,
)
from dws_redis import CAPABILITIES
from dws_redis._node import Node
from dws_redis._pending import PendingPublish
from dws_redis._settings import Settings


class RedisBroker(LogBroker):
    """Partition logs on a Redis or Valkey server, on a server that sentinels choose, or on a cluster.

    Args:
        url: URL of the servers, with the options of `RedisOptions`.

    Raises:
        InvalidBrokerURL: The URL names no Redis server, or has an unknown or invalid option.
    """

    capabilities = CAPABILITIES

    def __init__(self, url: str | BrokerURL) -> None:
        settings = Settings.read(url if isinstance(url, BrokerURL) else BrokerURL.parse(url))
        self._settings = settings
        self.partitions = settings.partitions  # type: ignore[misc]  # overrides the class attribute
        self.capabilities = replace(  # type: ignore[misc]
            CAPABILITIES,
            max_payload_bytes=settings.options.max_payload_bytes,
            idle_ops_per_s=CAPABILITIES.idle_ops_per_s * (settings.partitions if settings.kind == "cluster" else 1),
        )
        self._node: Node | None = None

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from a URL. Errors: see the class."""
        return cls(url)

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect. Return when publishing works."""
        if self._node is not None:
            raise BrokerError("this Redis broker is already started.", fix="use one broker object for each node")
        _check_channel(layout.channel)
        started = Node(self._settings, node, layout, sink)
        await started.start()
        self._node = started

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Send the queued publishes within `drain_s` seconds, then close all connections."""
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
        order: Hashable | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Store and send in one script call, together with all other publishes of this tick."""
        if self._node is None:
            future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            future.set_exception(_closed())
            return future
        item = PendingPublish(topic, payload, history, key, deadline_s)
        return self._node.publisher.publish(partition, item, order)

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return all records of a span, or a gap."""
        return await self._started().reader.read(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the current ends of the logs."""
        return await self._started().reader.heads(partitions)

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the channel."""
        await self._started().send_control(payload)

    def _started(self) -> Node:
        if self._node is None:
            raise _closed()
        return self._node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.masked_url} {'started' if self._node else 'stopped'}>"


def _check_channel(channel: str) -> None:
    """Raise if the names of a channel could be those of another one: braces delimit the hash tag of a name."""
    if "{" in channel or "}" in channel:
        raise ConfigurationError(
            f"channel {channel!r} contains a brace, which has a meaning in the names of Redis keys.",
            fix="choose a name without braces",
        )
    try:
        channel.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"channel {channel!r} cannot be encoded in UTF-8.", fix="choose another name"
        ) from None


def _closed() -> BrokerClosed:
    return BrokerClosed(
        "the Redis broker is not started.", fix="call start() first, and do not use the broker after stop()"
    )
