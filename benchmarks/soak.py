"""Memory over many messages: publishes through a node on the memory broker and prints the size of the process.

python benchmarks/soak.py --messages 1000000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from dws_core import Limits, WebSocketManager
from dws_core.testing import FakeWebSocket


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def run(messages: int) -> None:
    manager = WebSocketManager("soak", broker_url="memory://", limits=Limits(outbox_bytes=None))
    async with manager, AsyncExitStack() as stack:
        for number in range(4):
            await stack.enter_async_context(manager.connect(FakeWebSocket(), f"c{number}", topic=f"topic/{number}"))
        start = time.perf_counter()
        sizes = []
        for number in range(messages):
            sending = manager.publish(f"topic/{number % 1000}", {"n": number})
            if number % 100 == 0:
                await sending
            if number % (messages // 10) == messages // 10 - 1:
                await asyncio.sleep(0)
                sizes.append(rss_bytes())
                print(f"{number + 1:>9} messages: {sizes[-1] / 1e6:8.1f} MB")
        seconds = time.perf_counter() - start
        deliveries = manager.stats().deliveries
    print(f"{messages / seconds:.0f} publishes/s, growth over the second half: {(sizes[-1] - sizes[4]) / 1e6:.1f} MB")
    print(f"delivered {deliveries} of {messages // 1000 * 4}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=1_000_000)
    asyncio.run(run(parser.parse_args().messages))
