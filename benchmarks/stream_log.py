"""The base class of stream brokers on a wire in memory, next to two baselines in the same run: publish, and the tail.

python benchmarks/stream_log.py [--callers 200] [--messages 100000]

One thread does everything, so each rate is per second of CPU time. The wire costs almost nothing. `floor` is a list and
one future for each call. `memory` is the memory broker. Compare the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from dws_memory import InMemoryBroker
from support.streams import MemoryStreamBroker

from dws_core._log.stream.tail import StreamTail
from dws_core._log.tail import Advance
from dws_core.plugin import BrokerURL, GapReason, Head, History, Layout, LogBroker, Record

PAYLOAD = bytes(100)
TOPICS = [f"room/{number}" for number in range(50)]
HISTORY = History()


class Sink:
    """Counts what arrives."""

    records = 0

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        self.records += len(records)

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None: ...

    def on_control(self, sender: bytes, payload: bytes) -> None: ...

    def on_state(self, state: str, detail: str) -> None: ...


class Floor:
    """The least that a publish can cost: an entry in a list, and a future that the next tick completes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._log: list[bytes] = []

    def publish(self, topic: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._complete)
        self._log.append(PAYLOAD)
        self._waiting.append(future)
        return future

    def _complete(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)


async def rate(publish: Callable[[str], Awaitable[object]], callers: int, messages: int) -> float:
    """Return calls per CPU second of concurrent callers that await each call."""

    async def call(number: int) -> None:
        topic = TOPICS[number % len(TOPICS)]
        for _ in range(messages // callers):
            await publish(topic)

    began = time.process_time()
    await asyncio.gather(*(call(number) for number in range(callers)))
    return messages // callers * callers / (time.process_time() - began)


async def broker_rate(broker: LogBroker, callers: int, messages: int) -> float:
    """Return the rate of a broker, with the delivery of each record to the same node."""
    sink = Sink()
    await broker.start(node=b"node-a..", layout=Layout(channel="c"), sink=sink)
    await broker.set_interest(frozenset({0}))
    found = await rate(lambda topic: broker.publish(0, topic, PAYLOAD, history=HISTORY), callers, messages)
    await broker.stop()
    if sink.records != messages // callers * callers:
        raise RuntimeError(f"the sink has {sink.records} records")
    return found


def tail_rate(envelopes: list[bytes]) -> float:
    """Return records per CPU second of a tail that reads a stream."""
    tail = StreamTail(0, b"node-b..", None, max_skip=0)
    records = 0
    began = time.process_time()
    for offset, data in enumerate(envelopes):
        for event in tail.feed(offset, data):
            records += len(event.records) if isinstance(event, Advance) else 0
    return records / (time.process_time() - began)


async def main(callers: int, messages: int) -> None:
    floor = await rate(Floor().publish, callers, messages)
    memory = await broker_rate(InMemoryBroker.from_url(BrokerURL.parse("memory://bench")), callers, messages)
    broker = MemoryStreamBroker(BrokerURL.parse("memstream://bench"))
    stream = await broker_rate(broker, callers, messages)
    tail = tail_rate(broker.server.channels["c"][0].records)
    print(f"floor    {floor:>9,.0f} publishes per CPU second")
    print(f"memory   {memory:>9,.0f} publishes per CPU second, {memory / floor:.2f} of the floor")
    print(f"stream   {stream:>9,.0f} publishes per CPU second, {stream / floor:.2f} of the floor")
    print(f"tail     {tail:>9,.0f} records per CPU second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--messages", type=int, default=100_000)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.callers, arguments.messages))
