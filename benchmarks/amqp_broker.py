"""The RabbitMQ broker and plain aio-pika on a private RabbitMQ in one run: publish, receive, latency, and resume.

python benchmarks/amqp_broker.py [--seconds 3]

Rates are per second of wall-clock time, and RabbitMQ, the publisher and the receiver share the machine's cores. Compare
the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import aio_pika
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from dws_amqp import AmqpBroker
from services.rabbitmq import PrivateRabbit

from dws_core import WebSocketManager
from dws_core.plugin import BrokerURL, History, Layout, ReadSpan
from dws_core.testing import FakeWebSocket
from harness.broker_load import PAYLOAD, Sink, rate

PARTITIONS = 4
KEPT, NONE = History(size=300), History.none()


async def started(url: str, channel: str, sink: Any) -> AmqpBroker:
    """Return a started broker that tails all partitions."""
    broker = AmqpBroker.from_url(BrokerURL.parse(url))
    await broker.start(node=os.urandom(8), layout=Layout(channel=channel, partitions=PARTITIONS), sink=sink)
    await broker.set_interest(frozenset(range(PARTITIONS)))
    return broker


async def plain(url: str, seconds: float) -> tuple[float, float]:
    """Return the rates of aio-pika: publish with confirmation to a stream, and consume the stream."""
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1_000)
    arguments = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}
    queue = await channel.declare_queue("plain", durable=True, arguments=arguments)
    message = aio_pika.Message(PAYLOAD, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    published = await rate(lambda _: channel.default_exchange.publish(message, "plain", mandatory=True), seconds)
    times: list[float] = []

    async def receive(delivery: aio_pika.abc.AbstractIncomingMessage) -> None:
        times.append(time.perf_counter())
        await delivery.ack()

    await queue.consume(receive, arguments={"x-stream-offset": "first"})
    await asyncio.sleep(seconds)
    await connection.close()
    return published, len(times) / (times[-1] - times[0])


async def latency(url: str, seconds: float, per_second: int = 1_000) -> tuple[float, float]:
    """Publish on one node at a fixed rate without waiting. Return p50 and p99 in ms until another node receives it."""
    took: list[float] = []

    class LatencySink(Sink):
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
            now = time.perf_counter()
            took.extend(now - float(record.payload) for record in records)

    sender, listener = await started(url, "latency", Sink()), await started(url, "latency", LatencySink())
    count, began, futures = int(seconds * per_second), time.perf_counter(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        payload = repr(time.perf_counter()).encode()
        futures.append(sender.publish(number % PARTITIONS, f"t/{number % PARTITIONS}", payload, history=KEPT))
    await asyncio.gather(*futures)
    while len(took) < count:
        await asyncio.sleep(0.001)
    await sender.stop()
    await listener.stop()
    return percentiles(took)


async def resume(url: str, rounds: int = 50) -> tuple[float, float]:
    """Return p50 and p99 in ms of a read of 50 missed messages, which lie in 50 envelopes, from the stream."""
    broker = await started(url, "resume", Sink())
    receipts = [await broker.publish(0, "t", PAYLOAD, history=KEPT) for _ in range(51)]
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        result = await broker.read(
            ReadSpan(
                partition=0,
                epoch=receipts[0].epoch,
                since=receipts[0].offset or 0,
                until=receipts[-1].offset or 0,
                topics=["t"],
                limit=1_000,
                max_bytes=1_000_000,
            )
        )
        took.append(time.perf_counter() - began)
        assert len(result.records) == 50, result.gap
    await broker.stop()
    return percentiles(took)


def percentiles(took: list[float]) -> tuple[float, float]:
    """Return p50 and p99 in ms."""
    ordered = sorted(took)
    return 1_000 * ordered[len(took) // 2], 1_000 * ordered[len(took) * 99 // 100]


async def flood(url: str, channel: str, count: int) -> None:
    """Publish as fast as RabbitMQ accepts it, from a separate process."""
    broker = await started(url, channel, Sink())
    for _ in range(count // 10_000):
        await asyncio.gather(
            *(
                broker.publish(n % PARTITIONS, f"t/{n % PARTITIONS}", PAYLOAD, history=KEPT, deadline_s=60)
                for n in range(10_000)
            )
        )
    await broker.stop()


async def node_receive_rate(url: str, count: int) -> float:
    """Return how many records a node receives and routes per CPU second, while another process publishes."""
    manager = WebSocketManager("routing", broker_url=url, history={"#": KEPT})
    async with manager, manager.connect(socket := FakeWebSocket(), "ann") as ann:
        for number in range(100):
            socket.client_sends_json({"type": "subscribe", "topic": f"room/{number}/+"})
            await manager.receive(ann, await anext(aiter(ann)))
        child = multiprocessing.get_context("spawn").Process(target=_flood, args=(url, "routing", count))
        child.start()
        while (first := manager.stats().received) == 0:
            await asyncio.sleep(0.001)
        began = time.process_time()
        while manager.stats().received < count:
            await asyncio.sleep(0.001)
        took = time.process_time() - began
        child.join()
        return (count - first) / took


def _flood(url: str, channel: str, count: int) -> None:
    uvloop.run(flood(url, channel, count))


async def measure(server: PrivateRabbit, seconds: float) -> None:
    published, consumed = await plain(server.url, seconds)
    broker = await started(server.url, "bench", Sink())
    rows = {
        "aio-pika, publish with confirmation": published,
        "aio-pika, consume": consumed,
        "publish, with history": await rate(
            lambda n: broker.publish(n % PARTITIONS, f"t/{n % PARTITIONS}", PAYLOAD, history=KEPT), seconds
        ),
        "publish, without history": await rate(
            lambda n: broker.publish(n % PARTITIONS, f"t/{n % PARTITIONS}", PAYLOAD, history=NONE), seconds
        ),
    }
    await broker.stop()
    rows["received and routed by one node per second of its CPU"] = await node_receive_rate(server.url, 200_000)
    for what, (p50, p99) in {
        "from node to node at 1,000 messages a second": await latency(server.url, seconds),
        "resume of 50 missed messages from the stream": await resume(server.url),
    }.items():
        print(f"{what:55} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    for name, found in rows.items():
        print(f"{name:55} {found:10,.0f}/s   {found / published:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    server = PrivateRabbit()
    try:
        server.start()
        uvloop.run(measure(server, seconds))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
