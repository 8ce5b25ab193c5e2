"""The wire: what `StreamLogBroker` needs of RabbitMQ."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final

from pamqp.common import FieldTable

from dws_amqp import _reading
from dws_amqp._link import Link, Target, translated
from dws_amqp._publishing import Publisher
from dws_amqp._server import Server
from dws_amqp._streams import Names, declare_exchange, declare_streams
from dws_core.plugin import Layout, Start, StreamWire, WireInfo

_NAMES_BYTES: Final = 65_536
"""Room in an envelope for the topic and the key of the largest payload."""


class AmqpWire(StreamWire):
    """Three connections: RabbitMQ blocks those that publish during an alarm, and a failing scan may end its connection.

    Args:
        target: The servers.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._links: list[Link] = []
        self._publishers: dict[int, Publisher] = {}
        self._scanning: Link | None = None
        self._scan_lock = asyncio.Lock()

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        options = self._target.options
        self._names = names = Names(options.prefix, layout)
        self._queue = names.queue(secrets.token_hex(8))
        publishing, self._reading = await self._link("publishing"), await self._link("reading")
        server = Server.read(publishing.amqp.server_properties)
        async with translated(sent=False):
            channel = await publishing.channel()
            await declare_exchange(channel, names)
            stores = server.has_streams and await declare_streams(channel, names, options)
            if publishing.is_closed:
                publishing = await self._link("publishing")
            targets = {number: ("", name) for number, name in names.streams.items() if stores}
            for number, (exchange, key) in {**targets, -1: (names.control, "")}.items():
                own = await publishing.channel(confirms=True)
                self._publishers[number] = Publisher(publishing, own, exchange, key, append_timeout_s)
            await self._open_queue()
        return WireInfo(
            max_bytes=options.max_payload_bytes + _NAMES_BYTES,
            max_skip=_reading.MAX_SKIP,
            stores=stores,
            warnings=server.warnings(stores=stores),
        )

    async def close(self) -> None:
        links, self._links = self._links, []
        await asyncio.gather(*(link.close() for link in links))

    async def append(self, partition: int, data: bytes) -> None:
        await self._publishers[partition].append(data)

    async def send_control(self, data: bytes) -> None:
        await self._publishers[-1].append(data)

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        async with self._scan_lock:
            if self._scanning is None or self._scanning.is_closed:
                self._scanning = await self._link("scanning")
        name = self._names.streams[partition]
        async with aclosing(_reading.scan(self._scanning, name, partition, start, stop)) as records:
            async for record in records:
                yield record

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        sources = {number: (self._names.streams[number], start) for number, start in starts.items()}
        async with aclosing(_reading.read(self._reading, sources)) as records:
            async for record in records:
                yield record

    async def controls(self) -> AsyncIterator[bytes]:
        async with aclosing(_reading.read(self._reading, {0: (self._queue, None)})) as messages:
            async for _, _, data in messages:
                yield data

    async def _link(self, role: str) -> Link:
        link = await Link.open(self._target, f"{self._names.control.removesuffix('.control')} {role}")
        self._links.append(link)
        return link

    async def _open_queue(self) -> None:
        """Create this node's queue for messages that are not stored. It ends with the connection."""
        channel = await self._reading.channel()
        bounds: FieldTable = {"x-max-length": 10_000, "x-max-length-bytes": 67_108_864}
        await channel.queue_declare(self._queue, exclusive=True, auto_delete=True, arguments=bounds)
        await channel.queue_bind(self._queue, self._names.control)
