"""The Kafka broker and plain aiokafka on a private Kafka in one run: publish, receive, and start on a long log.

python benchmarks/kafka_broker.py [--seconds 3] [--records 1000000]

Kafka, the publisher and the receiver share the machine's cores. Compare the ratios, not the rates. The Kafka has its
default settings and one replica of each topic.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from functools import partial
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services.kafka import PrivateKafka
from support.kafka_admin import create_topic

from dws_core._log.stream.envelope import Draft, Envelope, Kind, encode
from harness.broker_load import (
    NONE,
    PAYLOAD,
    Rate,
    Sink,
    latencies,
    publish_rates,
    rate,
    receive_rates,
    run,
    show,
    started,
)

PARTITIONS = 4
HOUR_MS = 3_600_000


async def plain_publish_rate(address: str, seconds: float) -> Rate:
    """Return the rate of `send_and_wait` with acks="all"."""
    await create_topic(address, "plain", PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all")
    await producer.start()
    found = await rate(lambda n: producer.send_and_wait("plain", PAYLOAD, partition=n % PARTITIONS), seconds)
    await producer.stop()
    return found


async def plain_receive_rate(address: str) -> Rate:
    """Return the rate at which aiokafka reads the records of `plain_publish_rate`."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    places = [TopicPartition("plain", number) for number in range(PARTITIONS)]
    ends = await consumer.end_offsets(places)
    consumer.assign(places)
    for place in places:
        consumer.seek(place, 0)
    count, began, cpu = 0, time.perf_counter(), time.process_time()
    while count < sum(ends.values()):
        count += sum(map(len, (await consumer.getmany(timeout_ms=200)).values()))
    found = Rate(count / (time.perf_counter() - began), count / (time.process_time() - cpu))
    await consumer.stop()
    return found


async def start_time(url: str, records: int) -> tuple[float, float]:
    """Return the seconds that a node needs to start on an empty log, and on a log of an hour."""
    channel, times = f"long-{secrets.token_hex(2)}", []
    for _ in range(2):
        began = time.perf_counter()
        async with started(url, Sink(), channel) as broker:
            times.append(time.perf_counter() - began)
            heads = await broker.heads(range(PARTITIONS))
        if len(times) == 1:
            epochs = {number: bytes.fromhex(head.epoch) for number, head in heads.items()}
            await fill(url.removeprefix("kafka://"), f"dws.{channel}", epochs, records)
    return times[0], times[1]


async def fill(address: str, topic: str, epochs: dict[int, bytes], records: int) -> None:
    """Store envelopes with one message each, as if they had been published evenly during the last hour."""
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", max_batch_size=1_000_000)
    await producer.start()
    each, began, publisher = records // len(epochs), time.time() * 1000 - HOUR_MS, secrets.token_bytes(8)
    for number, epoch in epochs.items():
        sent = 0
        while sent < each:
            batch = producer.create_batch()
            while sent < each:
                envelope = Envelope(
                    kind=Kind.RECORDS,
                    publisher=publisher,
                    time_ms=int(began + HOUR_MS * sent / each),
                    epoch=epoch,
                    began=1,
                    first=sent + 1,
                    previous=sent,
                    drafts=[Draft(f"t/{sent % 1000}", PAYLOAD, 300, 600_000)],
                )
                if batch.append(timestamp=None, key=None, value=encode(envelope)) is None:
                    break
                sent += 1
            await (await producer.send_batch(batch, topic, partition=number))
    await producer.stop()


async def measure(server: PrivateKafka, options: argparse.Namespace) -> None:
    rows = {
        "aiokafka, send_and_wait": await plain_publish_rate(server.address, options.seconds),
        "aiokafka, getmany": await plain_receive_rate(server.address),
        **await publish_rates(server.url, options.seconds),
        **await receive_rates(server.url, 300_000, NONE),
    }
    show(rows, await latencies(server.url, options.seconds))
    empty, long = await start_time(server.url, options.records)
    print(f"{'start on an empty log':55} {empty:.2f} s")
    print(f"{f'start on a log of {options.records:,} records of an hour':55} {long:.2f} s")


if __name__ == "__main__":
    server = PrivateKafka()
    run(server, partial(measure, server), __doc__ or "", records=1_000_000)
