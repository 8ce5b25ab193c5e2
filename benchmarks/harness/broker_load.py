"""Loads on brokers with a log: publish, receive, and the time from node to node."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from dws_core import WebSocketManager, create_broker
from dws_core.plugin import History, Layout
from dws_core.testing import FakeWebSocket

PARTITIONS = 8
LAYOUT = Layout(channel="bench", partitions=PARTITIONS)
PAYLOAD = b"x" * 128
CALLERS = 200


class Sink:
    """Counts received records."""

    def __init__(self) -> None:
        self.count = 0

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
        self.count += len(records)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def rate(call: Callable[[int], Awaitable[Any]], seconds: float) -> float:
    """Run `CALLERS` concurrent callers, each awaiting one call after another. Return calls per second."""
    done, end = 0, time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call(number)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(caller, range(CALLERS)))
    return done / (time.perf_counter() - began)


async def publish_rate(url: str, history: History, seconds: float) -> float:
    """Return the rate of acknowledged publishes."""
    broker = create_broker(url)
    await broker.start(node=secrets.token_bytes(8), layout=LAYOUT, sink=Sink())
    try:
        return await rate(
            lambda n: broker.publish(n % PARTITIONS, f"t/{n % PARTITIONS}", PAYLOAD, history=history), seconds
        )
    finally:
        await broker.stop()


async def receive_rate(received: Callable[[], int], url: str, count: int) -> tuple[float, float]:
    """Return received records per CPU second of this process and per second, while another process publishes."""
    child = multiprocessing.get_context("spawn").Process(target=_flood, args=(url, count))
    child.start()
    before = received()
    while received() == before:
        await asyncio.sleep(0.001)
    began, first, clock = time.process_time(), received(), time.perf_counter()
    while received() < before + count:
        await asyncio.sleep(0.001)
    took, passed = time.process_time() - began, time.perf_counter() - clock
    child.join()
    return (before + count - first) / took, (before + count - first) / passed


async def broker_receive_rate(url: str, count: int) -> tuple[float, float]:
    """Return these rates for a broker alone."""
    broker, sink = create_broker(url), Sink()
    await broker.start(node=secrets.token_bytes(8), layout=LAYOUT, sink=sink)
    await broker.set_interest(frozenset(range(PARTITIONS)))
    try:
        return await receive_rate(lambda: sink.count, url, count)
    finally:
        await broker.stop()


async def node_receive_rate(url: str, count: int) -> tuple[float, float]:
    """Return these rates for a whole node, which matches each message against filters that do not match it."""
    manager = WebSocketManager("bench", broker_url=url, history={"#": History.none()})
    async with manager, manager.connect(socket := FakeWebSocket(), "ann") as ann:
        for number in range(100):
            socket.client_sends_json({"type": "subscribe", "topic": f"room/{number}/+"})
            await manager.receive(ann, await anext(aiter(ann)))
        return await receive_rate(lambda: manager.stats().received, url, count)


async def latency(url: str, seconds: float, per_second: int = 1_000) -> tuple[float, float]:
    """Publish on one node at a fixed rate without waiting. Return p50 and p99 in ms until another node receives it."""
    took: list[float] = []

    class LatencySink(Sink):
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
            now = time.perf_counter()
            took.extend(now - float(record.payload) for record in records)

    sender, listener = create_broker(url), create_broker(url)
    layout = Layout(channel="latency", partitions=PARTITIONS)
    await sender.start(node=secrets.token_bytes(8), layout=layout, sink=Sink())
    await listener.start(node=secrets.token_bytes(8), layout=layout, sink=LatencySink())
    await listener.set_interest(frozenset(range(PARTITIONS)))
    count, began, futures = int(seconds * per_second), time.perf_counter(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        payload = repr(time.perf_counter()).encode()
        futures.append(sender.publish(number % PARTITIONS, f"t/{number % PARTITIONS}", payload, history=History()))
    await asyncio.gather(*futures)
    while len(took) < count:
        await asyncio.sleep(0.001)
    await sender.stop()
    await listener.stop()
    ordered = sorted(took)
    return 1_000 * ordered[count // 2], 1_000 * ordered[count * 99 // 100]


async def flood(url: str, count: int) -> None:
    """Publish as fast as the broker accepts it."""
    broker = create_broker(url)
    await broker.start(node=secrets.token_bytes(8), layout=LAYOUT, sink=Sink())
    none = History.none()
    for _ in range(count // 10_000):
        futures = [
            broker.publish(n % PARTITIONS, f"t/{n % PARTITIONS}", PAYLOAD, history=none, deadline_s=60)
            for n in range(10_000)
        ]
        await asyncio.gather(*futures)
    await broker.stop()


def _flood(url: str, count: int) -> None:
    uvloop.run(flood(url, count))
