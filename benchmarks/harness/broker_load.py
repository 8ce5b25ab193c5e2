"""Loads on brokers with a log: publish, receive, and the time from node to node."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import uvloop

from dws_core import WebSocketManager, create_broker
from dws_core.plugin import History, Layout, LogBroker, Receipt
from dws_core.testing import FakeWebSocket

PAYLOAD = b"x" * 128
CALLERS = 200
KEPT, NONE = History(size=300), History.none()


class Server(Protocol):
    """A private server of a broker."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def remove(self) -> None: ...


class Rate(NamedTuple):
    """Messages per second, and per CPU second of this process. The server has its own CPU time."""

    per_second: float
    per_cpu_second: float


class Sink:
    """Counts received records."""

    def __init__(self) -> None:
        self.count = 0

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
        self.count += len(records)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class LatencySink(Sink):
    """Collects how long records were on their way, in seconds. Their payload is the time of the publish."""

    def __init__(self) -> None:
        super().__init__()
        self.took: list[float] = []

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Any) -> None:
        now = time.perf_counter()
        self.took.extend(now - float(record.payload) for record in records)


def percentiles(took: list[float]) -> tuple[float, float]:
    """Return p50 and p99 in ms."""
    ordered = sorted(took)
    return 1_000 * ordered[len(took) // 2], 1_000 * ordered[len(took) * 99 // 100]


def show(rows: dict[str, Rate], times: dict[str, tuple[float, float]]) -> None:
    """Print the rates, also relative to that of the first row, and the times."""
    first = next(iter(rows.values())).per_second
    for name, found in rows.items():
        cpu_ms = 1_000_000 / found.per_cpu_second
        print(f"{name:55} {found.per_second:10,.0f}/s {found.per_second / first:7.2f}   {cpu_ms:7.1f} ms CPU per 1,000")
    for name, (p50, p99) in times.items():
        print(f"{name:55} p50 {p50:.2f} ms, p99 {p99:.2f} ms")


async def rate(call: Callable[[int], Awaitable[Any]], seconds: float) -> Rate:
    """Run `CALLERS` concurrent callers, each awaiting one call after another. Return the rate of the calls."""
    done, end = 0, time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call(number)
            done += 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(caller, range(CALLERS)))
    return Rate(done / (time.perf_counter() - began), done / (time.process_time() - cpu))


def run(
    server: Server, measure: Callable[[argparse.Namespace], Coroutine[Any, Any, None]], doc: str, **more: int
) -> None:
    """Read the command line, and measure while a server runs.

    Args:
        server: The server.
        measure: Measures, with the options of the command line.
        doc: Help of the command.
        more: Names and defaults of further options. `--seconds` is one of every command.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    try:
        server.start()
        uvloop.run(measure(arguments))
    finally:
        server.remove()


async def publish_rates(url: str, seconds: float) -> dict[str, Rate]:
    """Return the rates of acknowledged publishes, with and without history."""
    return {
        "publish, with history": await publish_rate(url, KEPT, seconds),
        "publish, without history": await publish_rate(url, NONE, seconds),
    }


async def receive_rates(url: str, count: int, history: History) -> dict[str, Rate]:
    """Return the rates of received records, of a broker alone and of a whole node."""
    return {
        "received by one broker": await broker_receive_rate(url, count, history),
        "... and routed by a node": await node_receive_rate(url, count, history),
    }


async def latencies(url: str, seconds: float) -> dict[str, tuple[float, float]]:
    """Return the times from node to node."""
    return {"from node to node at 1,000 messages a second": await latency(url, seconds)}


@asynccontextmanager
async def started(url: str, sink: Sink, channel: str) -> AsyncIterator[LogBroker]:
    """Start a broker that tails all partitions, and stop it at the end of the block."""
    broker = create_broker(url)
    assert isinstance(broker, LogBroker)
    layout = Layout(channel=channel, partitions=broker.partitions)
    await broker.start(node=secrets.token_bytes(8), layout=layout, sink=sink)  # type: ignore[arg-type]
    try:
        await broker.set_interest(frozenset(range(broker.partitions)))
        yield broker
    finally:
        await broker.stop()


async def publish_rate(url: str, history: History, seconds: float) -> Rate:
    """Return the rate of acknowledged publishes."""
    async with started(url, Sink(), "publish") as broker:
        return await rate(lambda n: publish(broker, n, PAYLOAD, history), seconds)


def publish(broker: LogBroker, number: int, payload: bytes, history: History) -> asyncio.Future[Receipt]:
    """Publish to one of the partitions."""
    partition = number % broker.partitions
    return broker.publish(partition, f"t/{partition}", payload, history=history, deadline_s=60)


async def receive_rate(received: Callable[[], int], url: str, channel: str, count: int, history: History) -> Rate:
    """Return the rate of received records, while another process publishes."""
    child = multiprocessing.get_context("spawn").Process(target=_flood, args=(url, channel, count, history))
    child.start()
    before = received()
    while received() == before:
        await asyncio.sleep(0.001)
    began, first, clock = time.process_time(), received(), time.perf_counter()
    while received() < before + count:
        await asyncio.sleep(0.001)
    took, passed = time.process_time() - began, time.perf_counter() - clock
    child.join()
    return Rate((before + count - first) / passed, (before + count - first) / took)


async def broker_receive_rate(url: str, count: int, history: History) -> Rate:
    """Return this rate for a broker alone."""
    sink = Sink()
    async with started(url, sink, "receive"):
        return await receive_rate(lambda: sink.count, url, "receive", count, history)


async def node_receive_rate(url: str, count: int, history: History) -> Rate:
    """Return this rate for a whole node, which matches each message against filters that do not match it."""
    manager = WebSocketManager("routing", broker_url=url, history={"#": history})
    async with manager, manager.connect(socket := FakeWebSocket(), "ann") as ann:
        for number in range(100):
            socket.client_sends_json({"type": "subscribe", "topic": f"room/{number}/+"})
            await manager.receive(ann, await anext(aiter(ann)))
        return await receive_rate(lambda: manager.stats().received, url, "routing", count, history)


async def latency(url: str, seconds: float, per_second: int = 1_000) -> tuple[float, float]:
    """Publish on one node at a fixed rate without waiting. Return p50 and p99 in ms until another node receives it."""
    sink = LatencySink()
    async with started(url, Sink(), "latency") as sender, started(url, sink, "latency"):
        count, began, futures = int(seconds * per_second), time.perf_counter(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            payload = repr(time.perf_counter()).encode()
            futures.append(publish(sender, number, payload, KEPT))
        await asyncio.gather(*futures)
        while len(sink.took) < count:
            await asyncio.sleep(0.001)
    return percentiles(sink.took)


async def flood(url: str, channel: str, count: int, history: History) -> None:
    """Publish as fast as the broker accepts it."""
    async with started(url, Sink(), channel) as broker:
        for _ in range(count // 10_000):
            await asyncio.gather(*(publish(broker, n, PAYLOAD, history) for n in range(10_000)))


def _flood(url: str, channel: str, count: int, history: History) -> None:
    uvloop.run(flood(url, channel, count, history))
