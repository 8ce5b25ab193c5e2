"""Several processes share one file, and survive the end of one of them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dws_sqlite._broker import SQLiteBroker

from dws_core.plugin import BrokerURL, GapReason, Head, Layout, ReadSpan, Record

pytestmark = pytest.mark.anyio

CHAT = Layout(channel="chat")
HANG_S = 60.0
"""Seconds without progress after which a wait is a failure."""

PUBLISHER = """
import asyncio, sys
from dws_core.plugin import BrokerURL, History, Layout
from dws_sqlite._broker import SQLiteBroker

class Sink:
    def __getattr__(self, name): return lambda *args: None

async def main(url, name):
    broker = SQLiteBroker.from_url(BrokerURL.parse(url))
    await broker.start(node=name.encode() * 8, layout=Layout(channel="chat"), sink=Sink())
    for number in range(10**9):
        receipt = await broker.publish(0, name, b"%d" % number, history=History(size=10**6))
        print(number, receipt.offset, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Node:
    """A broker and its sink in one object."""

    def __init__(self, url: str) -> None:
        self.broker = SQLiteBroker.from_url(BrokerURL.parse(url))
        self.received: defaultdict[str, list[tuple[bytes, int | None]]] = defaultdict(list)
        self.lost: list[GapReason] = []
        self.changed = asyncio.Event()

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        for record in records:
            self.received[record.topic].append((record.payload, record.offset))
        self.changed.set()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.lost.append(reason)

    def on_control(self, sender: bytes, payload: bytes) -> None: ...

    def on_state(self, state: str, detail: str) -> None: ...

    async def until_received(self, topic: str, count: int) -> None:
        while len(self.received[topic]) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), HANG_S)

    async def read(self, topic: str) -> list[tuple[bytes, int | None]]:
        head = (await self.broker.heads([0]))[0]
        span = ReadSpan(
            partition=0, since=0, until=head.offset, epoch=head.epoch, topics=[topic], limit=10**6, max_bytes=10**8
        )
        result = await self.broker.read(span)
        assert result.gap is None
        return [(record.payload, record.offset) for record in result.records]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Node]:
    node = Node(url)
    await node.broker.start(node=b"observer", layout=CHAT, sink=node)
    await node.broker.set_interest(frozenset({0}))
    try:
        yield node
    finally:
        await node.broker.stop()


class Publisher:
    """A process that publishes 0, 1, 2 … to its topic until it is killed."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.acknowledged: list[tuple[bytes, int | None]] = []
        self._process = process

    @classmethod
    async def start(cls, url: str, name: str) -> Publisher:
        return cls(name, await asyncio.create_subprocess_exec(sys.executable, "-c", PUBLISHER, url, name, stdout=PIPE))

    async def acknowledge(self, count: int) -> None:
        """Wait for receipts."""
        assert self._process.stdout is not None
        for _ in range(count):
            line = await asyncio.wait_for(self._process.stdout.readline(), HANG_S)
            number, offset = line.split()
            self.acknowledged.append((number, int(offset)))

    async def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


async def test_killed_writer_loses_no_acknowledged_message(tmp_path: Path) -> None:
    """Another writer continues, and each message arrives once and in order."""
    url = f"sqlite://{tmp_path}/dws.db"
    async with opened(url) as node:
        publishers = [await Publisher.start(url, name) for name in "ab"]
        victim, survivor = publishers
        try:
            await asyncio.gather(*(publisher.acknowledge(50) for publisher in publishers))
            await victim.kill()
            await survivor.acknowledge(50)
        finally:
            for publisher in publishers:
                await publisher.kill()
        for publisher in publishers:
            wanted = publisher.acknowledged
            await node.until_received(publisher.name, len(wanted))
            received = node.received[publisher.name]
            assert received[: len(wanted)] == wanted
            assert [payload for payload, _ in received] == [b"%d" % number for number in range(len(received))]
            assert (await node.read(publisher.name))[: len(wanted)] == wanted
        assert node.lost == []


async def test_processes_may_create_file_at_same_time(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/dws.db"
    publishers = await asyncio.gather(*(Publisher.start(url, name) for name in "abcd"))
    try:
        await asyncio.gather(*(publisher.acknowledge(1) for publisher in publishers))
    finally:
        for publisher in publishers:
            await publisher.kill()
