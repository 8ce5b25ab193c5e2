"""`KafkaWire`: the streams of a channel in one topic of Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from dws_core.plugin import Layout, Start, StreamBounds, StreamWire, WireInfo
from dws_kafka._appends import Appends
from dws_kafka._clients import Clients, core, wire_errors
from dws_kafka._options import KafkaOptions
from dws_kafka._topic import OVERHEAD_BYTES, describe, prepare, risks, topic_of

_POLL_MS: Final = 200
"""How soon a waiting consumer notices that its connections are lost."""


class KafkaWire(StreamWire):
    """A topic with a partition for each stream.

    Publishing, following, scanning and bounds have their own connections, because Kafka replies to the requests of a
    connection one after the other, and a request for new records waits for them. Control messages and messages without
    history go through the streams: in a topic of their own, they would overtake the others or be overtaken.

    Args:
        login: Arguments of aiokafka's clients.
        options: The options of the URL.
    """

    _clients: Clients | None = None
    _producer: AIOKafkaProducer
    _bounds: AIOKafkaConsumer

    def __init__(self, login: dict[str, Any], options: KafkaOptions) -> None:
        self._login = login
        self._options = options
        self._scanners: list[AIOKafkaConsumer] = []
        self._appends: list[Appends] = []

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        """Connect, create the missing topics, and check them."""
        self._topic = topic_of(self._options.prefix, layout.channel)
        self._timeout_s = append_timeout_s
        self._clients = clients = Clients(self._login, self._topic, append_timeout_s)
        admin = await clients.admin()
        with wire_errors():
            topic, settings = await prepare(admin, self._topic, self._options, layout.partitions)
            await admin.close()
        max_bytes = int(settings["max.message.bytes"])
        compression = None if self._options.compression == "none" else self._options.compression
        self._producer = await clients.producer(max_batch_size=max_bytes, compression_type=compression)
        self._appends = [Appends(clients, self._producer, self._topic, n) for n in range(layout.partitions)]
        self._bounds = await clients.consumer("bounds")
        return WireInfo(max_bytes=max_bytes - OVERHEAD_BYTES, warnings=risks(topic, settings))

    async def close(self) -> None:
        """Abort everything."""
        if self._clients is not None:
            await self._clients.abort()

    async def append(self, partition: int, data: bytes) -> int:
        """Append, and return the offset when all in-sync replicas have the record."""
        return await self._appends[partition].append(data, self._timeout_s)

    async def bounds(self, partition: int) -> StreamBounds:
        """Return the ends of a partition, and the id of the topic."""
        self._opened().check()
        place = TopicPartition(self._topic, partition)
        with wire_errors():
            first = await self._bounds.beginning_offsets([place])
            last = await self._bounds.end_offsets([place])
            topic = await describe(core(self._bounds), self._topic)
        return StreamBounds(first=first[place], next=last[place], identity=topic.id)

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        """Iterate over a range with a consumer that does nothing else in the meantime."""
        self._opened().check()
        place, at = TopicPartition(self._topic, partition), start
        consumer = self._scanners.pop() if self._scanners else await self._consumer("scan", fetch_max_wait_ms=10)
        try:
            consumer.assign([place])
            consumer.seek(place, start)
            while at <= stop:
                for record in await self._next(consumer):
                    if record.offset <= stop:
                        yield record.offset, record.value or b""
                with wire_errors():
                    at = await consumer.position(place)
        finally:
            consumer.pause(place)
            self._scanners.append(consumer)

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        """Iterate over partitions until their connections break or their leaders change."""
        offsets = {TopicPartition(self._topic, n): await self._offset(n, start) for n, start in starts.items()}
        consumer = await self._consumer("follow")
        consumer.assign(list(offsets))
        for place, offset in offsets.items():
            consumer.seek(place, offset)
        while True:
            for record in await self._next(consumer):
                yield record.partition, record.offset, record.value or b""

    async def _consumer(self, name: str, **options: Any) -> AIOKafkaConsumer:
        return await self._opened().consumer(name, **options)

    async def _offset(self, partition: int, start: int | Start) -> int:
        if not isinstance(start, Start):
            return start
        bounds = await self.bounds(partition)
        return bounds.first if start is Start.FIRST else max(bounds.first, bounds.next - 1)

    async def _next(self, consumer: AIOKafkaConsumer) -> list[ConsumerRecord]:
        """Return the next records. Once the clients are lost, they may come from another leader."""
        with wire_errors():
            found = await consumer.getmany(timeout_ms=_POLL_MS)
        self._opened().check()
        return [record for records in found.values() for record in records]

    def _opened(self) -> Clients:
        if self._clients is None:
            raise RuntimeError("open() comes first")
        return self._clients
