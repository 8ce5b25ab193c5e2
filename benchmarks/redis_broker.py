"""The Redis broker beside plain redis-py, on a private Redis, in one run: publish with and without history, and receive.

python benchmarks/redis_broker.py [--seconds 3]

Rates are per second of the clock: Redis, the publisher and the receiver share the machine's cores. Read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from dws_redis import RedisBroker
from services.redis import PrivateRedis

from dws_core.plugin import BrokerURL, History, Layout

LAYOUT = Layout(channel="bench", partitions=8)
PAYLOAD = b"x" * 128
CALLERS = 200


class Sink:
    """Counts what comes."""

    def __init__(self) -> None:
        self.count = 0

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
        self.count += len(records)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def rate(call: Callable[[int], Awaitable[Any]], seconds: float) -> float:
    """Let callers call one after the other, each awaiting its own; return calls per second."""
    done, end = 0, time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call(number)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(caller, range(CALLERS)))
    return done / (time.perf_counter() - began)


async def receive(broker: RedisBroker, sink: Sink, history: History, count: int) -> float:
    """Publish as fast as Redis takes it; return what one node hears per second of receiving."""
    sink.count = 0
    began = time.perf_counter()
    futures = [broker.publish(n % 8, f"t/{n % 8}", PAYLOAD, history=history, deadline_s=60) for n in range(count)]
    while sink.count < count:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - began
    await asyncio.gather(*futures)
    return count / took


async def measure(server: PrivateRedis, seconds: float) -> None:
    client = redis.asyncio.Redis.from_url(server.url, protocol=2, max_connections=2 * CALLERS)
    plain = await rate(lambda n: client.publish(f"t{n % 8}", PAYLOAD), seconds)
    await client.aclose()
    broker, sink = RedisBroker.from_url(BrokerURL.parse(server.url)), Sink()
    await broker.start(node=b"benchmar", layout=LAYOUT, sink=sink)  # type: ignore[arg-type]
    kept, none = History(size=300), History.none()
    rows = {
        "redis-py, publish (nothing is kept)": plain,
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
    await broker.stop()
    for name, found in rows.items():
        print(f"{name:50} {found:10,.0f}/s   {found / plain:6.2f}")


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
