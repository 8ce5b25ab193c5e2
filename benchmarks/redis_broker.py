"""The Redis broker and plain redis-py on a private Redis in one run: publish with and without history, and receive.

python benchmarks/redis_broker.py [--seconds 3]

Rates are per second of wall-clock time, and Redis, the publisher and the receiver share the machine's cores. Compare
the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import redis.asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services.redis import PrivateRedis

from dws_core.plugin import History
from harness.broker_load import (
    CALLERS,
    KEPT,
    NONE,
    PAYLOAD,
    Rate,
    Sink,
    broker_receive_rate,
    latency,
    node_receive_rate,
    publish,
    publish_rate,
    rate,
    show,
    started,
)


async def publish_and_receive(url: str, history: History, count: int) -> Rate:
    """Publish as fast as Redis accepts it. Return the rate at which the same node receives."""
    sink = Sink()
    async with started(url, sink, "both") as broker:
        began, cpu = time.perf_counter(), time.process_time()
        futures = [publish(broker, n, PAYLOAD, history) for n in range(count)]
        while sink.count < count:
            await asyncio.sleep(0.001)
        found = Rate(count / (time.perf_counter() - began), count / (time.process_time() - cpu))
        await asyncio.gather(*futures)
    return found


async def measure(url: str, seconds: float) -> None:
    client = redis.asyncio.Redis.from_url(url, protocol=2, max_connections=2 * CALLERS)
    plain = await rate(lambda n: client.publish(f"t{n % 8}", PAYLOAD), seconds)
    await client.aclose()
    rows = {
        "redis-py, publish (no history)": plain,
        "publish, with history": await publish_rate(url, KEPT, seconds),
        "publish, without history": await publish_rate(url, NONE, seconds),
        "publish and receive, with history, one node": await publish_and_receive(url, KEPT, 40_000),
        "publish and receive, without history, one node": await publish_and_receive(url, NONE, 40_000),
        "received by one broker": await broker_receive_rate(url, 200_000, NONE),
        "... and routed by a node": await node_receive_rate(url, 200_000, NONE),
    }
    show(rows, {"from node to node at 1,000 messages a second": await latency(url, seconds)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    server = PrivateRedis()
    server.start()
    try:
        uvloop.run(measure(server.url, seconds))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
