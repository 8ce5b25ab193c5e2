"""The RabbitMQ broker and plain aio-pika on a private RabbitMQ in one run: publish, receive, latency, and resume.

python benchmarks/amqp_broker.py [--seconds 3]

Rates are per second of wall-clock time, and RabbitMQ, the publisher and the receiver share the machine's cores. Compare
the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from functools import partial
from pathlib import Path

import aio_pika

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services.rabbitmq import PrivateRabbit

from dws_core.plugin import ReadSpan
from harness.broker_load import (
    KEPT,
    PAYLOAD,
    Rate,
    Sink,
    latencies,
    percentiles,
    publish,
    publish_rates,
    rate,
    receive_rates,
    run,
    show,
    started,
)


async def plain(url: str, seconds: float) -> tuple[Rate, Rate]:
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

    began = time.process_time()
    await queue.consume(receive, arguments={"x-stream-offset": "first"})
    await asyncio.sleep(seconds)
    cpu = time.process_time() - began
    await connection.close()
    return published, Rate(len(times) / (times[-1] - times[0]), len(times) / cpu)


async def resume(url: str, rounds: int = 50) -> tuple[float, float]:
    """Return p50 and p99 in ms of a read of 50 missed messages, which lie in 50 envelopes, from the stream."""
    took = []
    async with started(url, Sink(), "resume") as broker:
        receipts = [await publish(broker, 0, PAYLOAD, KEPT) for _ in range(51)]
        for _ in range(rounds):
            began = time.perf_counter()
            result = await broker.read(
                ReadSpan(
                    partition=0,
                    epoch=receipts[0].epoch,
                    since=receipts[0].offset or 0,
                    until=receipts[-1].offset or 0,
                    topics=["t/0"],
                    limit=1_000,
                    max_bytes=1_000_000,
                )
            )
            took.append(time.perf_counter() - began)
            assert len(result.records) == 50, result.gap
    return percentiles(took)


async def measure(server: PrivateRabbit, options: argparse.Namespace) -> None:
    published, consumed = await plain(server.url, options.seconds)
    rows = {
        "aio-pika, publish with confirmation": published,
        "aio-pika, consume": consumed,
        **await publish_rates(server.url, options.seconds),
        **await receive_rates(server.url, 200_000, KEPT),
    }
    times = {
        **await latencies(server.url, options.seconds),
        "resume of 50 missed messages from the stream": await resume(server.url),
    }
    show(rows, times)


if __name__ == "__main__":
    server = PrivateRabbit()
    run(server, partial(measure, server), __doc__ or "")
