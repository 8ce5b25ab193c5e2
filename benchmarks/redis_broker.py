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
from functools import partial
from pathlib import Path

import redis.asyncio

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
    latencies,
    publish,
    publish_rates,
    rate,
    receive_rates,
    run,
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


async def measure(server: PrivateRedis, options: argparse.Namespace) -> None:
    client = redis.asyncio.Redis.from_url(server.url, protocol=2, max_connections=2 * CALLERS)
    plain = await rate(lambda n: client.publish(f"t{n % 8}", PAYLOAD), options.seconds)
    await client.aclose()
    rows = {
        "redis-py, publish (no history)": plain,
        **await publish_rates(server.url, options.seconds),
        "publish and receive, with history, one node": await publish_and_receive(server.url, KEPT, 40_000),
        "publish and receive, without history, one node": await publish_and_receive(server.url, NONE, 40_000),
        **await receive_rates(server.url, 200_000, NONE),
    }
    show(rows, await latencies(server.url, options.seconds))


if __name__ == "__main__":
    server = PrivateRedis()
    run(server, partial(measure, server), __doc__ or "")
