"""Promises of the SQLite broker beyond the suite: it survives kill -9, and its gaps are exact."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dws_sqlite import _store as store_module
from dws_sqlite import _tail as tail_module
from dws_sqlite._broker import SQLiteBroker, SQLiteOptions

from dws_core.plugin import (
    BrokerUnavailable,
    BrokerURL,
    GapReason,
    Head,
    History,
    InvalidBrokerURL,
    Layout,
    ReadSpan,
    Receipt,
    Record,
)

pytestmark = pytest.mark.anyio

CHAT = Layout(channel="chat")
HANG_S = 60.0
"""Seconds after which a wait is a failure."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Node:
    """A broker and its sink in one object."""

    def __init__(self, path: Path, *, poll_s: float = 0.05) -> None:
        self.broker = SQLiteBroker(str(path), SQLiteOptions(poll_s=poll_s))
        self.records: list[Record] = []
        self.lost: list[GapReason] = []
        self.states: list[str] = []
        self.changed = asyncio.Event()

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        self.records += records
        self.changed.set()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.lost.append(reason)
        self.changed.set()

    def on_control(self, sender: bytes, payload: bytes) -> None: ...

    def on_state(self, state: str, detail: str) -> None:
        self.states.append(state)
        self.changed.set()

    async def start(self) -> Node:
        await self.broker.start(node=b"12345678", layout=CHAT, sink=self)
        await self.broker.set_interest(frozenset({0}))
        return self

    async def publish(self, topic: str, payload: bytes = b"", size: int = 300, ttl_s: float = 600.0) -> Receipt:
        return await self.broker.publish(0, topic, payload, history=History(size=size, ttl_s=ttl_s))

    async def read(self, since: int, topics: Any) -> list[int] | GapReason:
        head = (await self.broker.heads([0]))[0]
        result = await self.broker.read(
            ReadSpan(
                partition=0,
                since=since,
                until=head.offset,
                epoch=head.epoch,
                topics=topics,
                limit=1000,
                max_bytes=10**6,
            )
        )
        return result.gap or [record.offset or 0 for record in result.records]

    async def until(self, happened: Any) -> None:
        async with asyncio.timeout(HANG_S):
            while not happened():
                await self.changed.wait()
                self.changed.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dws.db"


@pytest.fixture
async def node(path: Path) -> AsyncIterator[Node]:
    node = await Node(path).start()
    yield node
    await node.broker.stop()


class Clock:
    """A clock of the store that tests can advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_ms = 0
        now_ms = store_module._now_ms
        monkeypatch.setattr(store_module, "_now_ms", lambda: now_ms() + self.ahead_ms)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_url_must_be_absolute_path() -> None:
    assert SQLiteBroker.from_url(BrokerURL.parse("sqlite:///tmp/a.db"))._path == "/tmp/a.db"
    for wrong in ("sqlite://", "sqlite://host/tmp/a.db", "sqlite://user:secret@/tmp/a.db"):
        with pytest.raises(InvalidBrokerURL, match="write sqlite:///"):
            SQLiteBroker.from_url(BrokerURL.parse(wrong))


PUBLISHER = """
import asyncio, sys
from dws_core.plugin import History, Layout
from dws_sqlite._broker import SQLiteBroker

class Sink:
    def __getattr__(self, name): return lambda *args: None

async def main():
    broker = SQLiteBroker(sys.argv[1])
    await broker.start(node=b"other---", layout=Layout(channel="chat"), sink=Sink())
    for number in range(10**9):
        receipt = await broker.publish(0, "t", b"%d" % number, history=History(size=10**6))
        print(number, receipt.offset, flush=True)

asyncio.run(main())
"""


async def test_acknowledged_messages_survive_kill_9(node: Node, path: Path) -> None:
    """The other node receives each of them once."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUBLISHER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged: list[tuple[bytes, int]] = []
    while len(acknowledged) < 50:
        number, _, offset = (await asyncio.wait_for(process.stdout.readline(), HANG_S)).partition(b" ")
        acknowledged.append((number, int(offset)))
    process.kill()
    await process.wait()
    await node.publish("t", b"end", size=10**6)
    await node.until(lambda: node.records and node.records[-1].payload == b"end")
    received = [(record.payload, record.offset) for record in node.records]
    assert received[: len(acknowledged)] == acknowledged
    assert [payload for payload, _ in received[:-1]] == [b"%d" % n for n in range(len(received) - 1)]
    assert await node.read(0, ["t"]) == [offset for _, offset in received]


async def test_node_waits_for_concurrent_file_creation(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        other.execute("ROLLBACK")

    monkeypatch.setattr(store_module.time, "sleep", wait)
    node = Node(path)
    node.broker = SQLiteBroker(str(path), SQLiteOptions(busy_s=0.01))
    other.execute("PRAGMA busy_timeout = 0")
    monkeypatch.setattr(store_module.time, "monotonic", lambda: 0.0)
    await node.start()
    monkeypatch.undo()
    await node.broker.stop()
    other.close()
    assert len(waited) == 1


async def test_locked_file_is_unavailable(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BrokerUnavailable, match="locked"):
        await SQLiteBroker(str(path), SQLiteOptions(busy_s=0.01)).start(node=b"12345678", layout=CHAT, sink=Node(path))
    other.close()


async def test_node_without_nudge_polls_file(node: Node, path: Path) -> None:
    other = await Node(path).start()
    other.broker._tail.nudge = lambda ports: None  # type: ignore[method-assign]  # as if all nudges were lost
    await other.publish("t", b"x")
    await node.until(lambda: node.records)
    await other.broker.stop()


async def test_history_size_applies_before_deletion(node: Node) -> None:
    for _ in range(5):
        await node.publish("t", size=2)
    await node.publish("quiet")
    assert await node.read(3, ["t"]) == [4, 5]
    assert await node.read(2, ["t"]) is GapReason.TRIMMED
    assert await node.read(0, ["quiet"]) == [6]
    await node.until(lambda: len(node.records) == 6)


async def test_history_size_applies_after_deletion(node: Node, clock: Clock) -> None:
    for _ in range(5):
        await node.publish("t", size=2)
    clock.ahead_ms = 61_000
    await node.publish("t", size=2)
    assert await node.read(3, ["t"]) is GapReason.TRIMMED
    assert await node.read(4, ["t"]) == [5, 6]
    assert await node.read(4, lambda topic: True) == [5, 6]
    assert await node.read(0, ["other"]) == []


async def test_expired_record_is_gap_before_and_after_deletion(node: Node, clock: Clock) -> None:
    await node.publish("t", ttl_s=10)
    await node.publish("other")
    clock.ahead_ms = 11_000
    assert await node.read(0, ["t"]) is GapReason.TRIMMED
    assert await node.read(1, ["t"]) == []
    clock.ahead_ms = 80_000
    await node.broker._worker.run(node.broker._store.join, b"12345678", 1)
    assert await node.read(0, ["t"]) is GapReason.TRIMMED
    assert await node.read(0, ["other"]) == [2]
    assert await node.read(1, ["t"]) == []


async def test_remembered_deleted_topics_are_bounded(node: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_MAX_DROPPED", 2)
    for number in range(5):
        await node.publish(f"t/{number}", ttl_s=1)
    await node.publish("kept")
    clock.ahead_ms = 62_000
    await node.broker._worker.run(node.broker._store.join, b"12345678", 1)
    assert await node.read(2, ["kept"]) is GapReason.TRIMMED, "t/2 and those before it are forgotten"
    assert await node.read(3, ["kept"]) == [6]
    assert await node.read(3, ["t/3"]) is GapReason.TRIMMED


async def test_forgotten_topic_is_gap(node: Node) -> None:
    await node.publish("t")
    await node.publish("u")
    await node.broker.forget("t")
    await node.broker.forget("unknown")
    assert await node.read(0, ["t"]) is GapReason.TRIMMED
    assert await node.read(0, ["u"]) == [2]
    await node.publish("t")
    assert await node.read(1, ["t"]) == [3]


async def test_node_that_polled_too_late_receives_gap(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "GRACE_S", -1.0)
    await node.publish("t")
    await node.until(lambda: node.lost)
    assert node.lost == [GapReason.TRIMMED]
    assert node.records == []


async def test_failing_file_is_reported_and_polled_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.broker._store, "end", lambda: node.broker._store._one("SELECT * FROM no_such_table"))
    await node.until(lambda: node.states == ["live", "degraded"])
    monkeypatch.undo()
    await node.until(lambda: node.states == ["live", "degraded", "live"])
    await node.publish("t")
    await node.until(lambda: node.records)
