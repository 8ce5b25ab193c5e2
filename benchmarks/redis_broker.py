"""The Redis broker and plain redis-py on a private Redis in one run: publish with and without history, and receive.

python benchmarks/redis_broker.py [--seconds 3]

Rates are per second of wall-clock time, and Redis, the publisher and the receiver share the machine's cores. Compare
the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from dws_redis import RedisBroker
from services.redis import PrivateRedis

from dws_core import WebSocketManager
from dws_core.plugin import BrokerURL, History, Layout
from dws_core.testing import FakeWebSocket
from harness.broker_load import CALLERS, LAYOUT, PAYLOAD, Sink, rate


async def receive(broker: RedisBroker, sink: Sink, history: History, count: int) -> float:
    """Publish as fast as Redis accepts it. Return how many records one node receives per second."""
    sink.count = 0
    began = time.perf_counter()
    futures = [broker.publish(n % 8, f"t/{n % 8}", PAYLOAD, history=history, deadline_s=60) for n in range(count)]
    while sink.count < count:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - began
    await asyncio.gather(*futures)
    return count / took


async def latency(url: str, seconds: float, per_second: int = 1_000) -> tuple[float, float]:
    """Publish on one node at a fixed rate without waiting. Return p50 and p99 in ms until another node receives it."""
    took: list[float] = []

    class LatencySink(Sink):
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
            now = time.perf_counter()
            took.extend(now - float(record.payload) for record in records)

    sender, listener = (RedisBroker.from_url(BrokerURL.parse(url)) for _ in range(2))
    layout = Layout(channel="latency", partitions=8)
    await sender.start(node=b"sender 1", layout=layout, sink=Sink())  # type: ignore[arg-type]
    await listener.start(node=b"listener", layout=layout, sink=LatencySink())  # type: ignore[arg-type]
    await listener.set_interest(frozenset(range(8)))
    count, began, futures = int(seconds * per_second), time.perf_counter(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        payload = repr(time.perf_counter()).encode()
        futures.append(sender.publish(number % 8, f"t/{number % 8}", payload, history=History(size=300)))
    await asyncio.gather(*futures)
    while len(took) < count:
        await asyncio.sleep(0.001)
    await sender.stop()
    await listener.stop()
    ordered = sorted(took)
    return 1_000 * ordered[count // 2], 1_000 * ordered[count * 99 // 100]


async def flood(url: str, count: int) -> None:
    """Publish as fast as Redis accepts it, from a separate process."""
    broker = RedisBroker.from_url(BrokerURL.parse(url))
    await broker.start(node=b"flooding", layout=LAYOUT, sink=Sink())  # type: ignore[arg-type]
    for _ in range(count // 10_000):
        await asyncio.gather(
            *(
                broker.publish(n % 8, f"t/{n % 8}", PAYLOAD, history=History.none(), deadline_s=60)
                for n in range(10_000)
            )
        )
    await broker.stop()


async def receive_rate(received: Callable[[], int], url: str, count: int) -> float:
    """Return received records per CPU second of this process, while another process publishes."""
    child = multiprocessing.get_context("spawn").Process(target=_flood, args=(url, count))
    child.start()
    before = received()
    while received() == before:
        await asyncio.sleep(0.001)
    began, first = time.process_time(), received()
    while received() < before + count:
        await asyncio.sleep(0.001)
    took = time.process_time() - began
    child.join()
    return (before + count - first) / took


async def node_receive_rate(url: str, count: int) -> float:
    """Return the same rate for a whole node, which matches each message against filters that do not match it."""
    manager = WebSocketManager("bench", broker_url=url, history={"#": History.none()})
    async with manager, manager.connect(socket := FakeWebSocket(), "ann") as ann:
        for number in range(100):
            socket.client_sends_json({"type": "subscribe", "topic": f"room/{number}/+"})
            await manager.receive(ann, await anext(aiter(ann)))
        return await receive_rate(lambda: manager.stats().received, url, count)


def _flood(url: str, count: int) -> None:
    uvloop.run(flood(url, count))


async def measure(server: PrivateRedis, seconds: float) -> None:
    client = redis.asyncio.Redis.from_url(server.url, protocol=2, max_connections=2 * CALLERS)
    plain = await rate(lambda n: client.publish(f"t{n % 8}", PAYLOAD), seconds)
    await client.aclose()
    broker, sink = RedisBroker.from_url(BrokerURL.parse(server.url)), Sink()
    await broker.start(node=b"benchmar", layout=LAYOUT, sink=sink)  # type: ignore[arg-type]
    kept, none = History(size=300), History.none()
    rows = {
        "redis-py, publish (no history)": plain,
        "publish, with history": await rate(
            lambda n: broker.publish(n % 8, f"t/{n % 8}", PAYLOAD, history=kept), seconds
        ),
        "publish, without history": await rate(
            lambda n: broker.publish(n % 8, f"t/{n % 8}", PAYLOAD, history=none), seconds
        ),
    }
    await broker.set_interest(frozenset(range(8)))
    rows["publish and receive, with history, one node"] = await receive(broker, sink, kept, 40_000)
    rows["publish and receive, without history, one node"] = await receive(broker, sink, none, 40_000)
    rows["received by one node per second of its CPU"] = await receive_rate(lambda: sink.count, server.url, 200_000)
    await broker.stop()
    rows["received and routed by one node per second of its CPU"] = await node_receive_rate(server.url, 200_000)
    p50, p99 = await latency(server.url, seconds)
    print(f"{'from node to node at 1,000 messages a second':55} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    for name, found in rows.items():
        print(f"{name:55} {found:10,.0f}/s   {found / plain:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    server = PrivateRedis()
    server.start()
    try:
        uvloop.run(measure(server, seconds))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
