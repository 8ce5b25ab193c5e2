"""The rules of a wire, and the options of the URL."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from dws_sqlite import _database, _wire
from dws_sqlite._broker import SQLiteBroker
from dws_sqlite._wire import SQLiteWire

from dws_core.plugin import (
    BrokerURL,
    InvalidBrokerURL,
    Layout,
    Start,
    StreamBounds,
    WireLost,
    WireOutOfRange,
)

pytestmark = pytest.mark.anyio

CHAT = Layout(channel="chat")
HANG_S = 60.0
"""Seconds after which a wait is a failure."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dws.db"


@asynccontextmanager
async def opened(path: Path, query: str = "", *, append_timeout_s: float = HANG_S) -> AsyncIterator[SQLiteWire]:
    wire = SQLiteBroker.from_url(BrokerURL.parse(f"sqlite://{path}{query}")).wire()
    assert isinstance(wire, SQLiteWire)
    await wire.open(CHAT, append_timeout_s=append_timeout_s)
    try:
        yield wire
    finally:
        await wire.close()


class Clock:
    """A clock for the ages of rows."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_wire, "time", clock)
    return clock


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_database, "_BUSY_S", 0.01)


def lock(path: Path) -> sqlite3.Connection:
    """Lock the file, as a process that writes, until the connection is closed."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def scanned(wire: SQLiteWire, start: int, stop: int) -> list[tuple[int, bytes]]:
    return [row async for row in wire.scan(0, start, stop)]


async def followed(wire: SQLiteWire, start: int | Start, count: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    async with asyncio.timeout(HANG_S):
        async for _, offset, data in wire.follow({0: start}):
            found.append((offset, data))
            if len(found) == count:
                break
    return found


def test_url_must_be_absolute_path() -> None:
    for wrong in ("sqlite://", "sqlite://host/tmp/a.db", "sqlite://user:secret@/tmp/a.db"):
        with pytest.raises(InvalidBrokerURL, match="write sqlite:///"):
            SQLiteBroker.from_url(BrokerURL.parse(wrong))


@pytest.mark.parametrize(("query", "setting"), [("", 1), ("?synchronous=full", 2)])
async def test_synchronous_is_set(path: Path, query: str, setting: int) -> None:
    async with opened(path, query) as wire:
        assert await wire._writer.run(("PRAGMA synchronous",)) == [(setting,)]
        assert await wire._writer.run(("PRAGMA journal_mode",)) == [("wal",)]


async def test_offsets_are_dense_in_each_partition(path: Path) -> None:
    layout = Layout(channel="two", partitions=2)
    async with opened(path) as wire:
        await wire.open(layout, append_timeout_s=HANG_S)
        assert await wire.bounds(1) == StreamBounds(first=1, next=1, identity=wire._identity)
        assert [await wire.append(partition, b"x") for partition in (0, 1, 1, 0, 1)] == [1, 1, 2, 2, 3]
        assert await wire.bounds(1) == StreamBounds(first=1, next=4, identity=wire._identity)


async def test_channels_differ_by_case_and_quotes(path: Path) -> None:
    async with opened(path) as wire:
        for channel in ("Chat", 'c"hat', "c'hat", "sqlite_x", "chat"):
            await wire.open(Layout(channel=channel), append_timeout_s=HANG_S)
            assert await wire.append(0, channel.encode()) == 1
            assert await scanned(wire, 1, 1) == [(1, channel.encode())]


async def test_pages_are_joined(path: Path) -> None:
    async with opened(path) as wire:
        rows = [(await wire.append(0, b"%d" % number), b"%d" % number) for number in range(50)]
        assert await scanned(wire, 2, 49) == rows[1:49]
        assert await followed(wire, 2, 49) == rows[1:]
        assert await followed(wire, Start.FIRST, 50) == rows


async def test_follow_receives_rows_of_other_process(path: Path) -> None:
    async with opened(path) as reader, opened(path) as writer:
        following = asyncio.get_running_loop().create_task(followed(reader, 1, 2))
        assert [await writer.append(0, data) for data in (b"one", b"two")] == [1, 2]
        assert await following == [(1, b"one"), (2, b"two")]


async def test_old_rows_are_deleted_by_appends(path: Path, clock: Clock) -> None:
    async with opened(path, "?retention_s=2m") as wire:
        for _ in range(20):
            await wire.append(0, b"old")
        clock.now_s += 121
        await wire.append(0, b"new")
        assert await wire.bounds(0) == StreamBounds(first=9, next=22, identity=wire._identity)
        for _ in range(3):
            await wire.append(0, b"new")
        assert await wire.bounds(0) == StreamBounds(first=21, next=25, identity=wire._identity)
        assert await followed(wire, Start.FIRST, 1) == [(21, b"new")]
        with pytest.raises(WireOutOfRange):
            await scanned(wire, 20, 24)


@pytest.mark.parametrize("row", [(None, "text"), (None, 7), (None, None), (2**46, b"x"), (2**63 - 1, b"x")])
async def test_row_that_nobody_can_read_is_refused(path: Path, row: tuple[int | None, object]) -> None:
    """It would end the wire of every node, or make offsets that clients cannot send."""
    async with opened(path) as wire:
        other = sqlite3.connect(path)
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            other.execute(f"INSERT INTO {wire._tables[0]} VALUES (?, 0, ?)", row)
        other.close()
        assert await wire.append(0, b"x") == 1


async def test_offsets_continue_after_all_rows_expired(path: Path, clock: Clock) -> None:
    async with opened(path, "?retention_s=1s") as wire:
        for number in (1, 2, 3):
            assert await wire.append(0, b"x") == number
            clock.now_s += 2


async def test_scan_beyond_end_is_refused(path: Path) -> None:
    async with opened(path) as wire:
        await wire.append(0, b"x")
        with pytest.raises(WireOutOfRange):
            await scanned(wire, 2, 2)


@pytest.mark.usefixtures("impatient")
async def test_failed_append_is_followed_by_none(path: Path) -> None:
    """The lock ends between the first append and those that wait behind it."""
    async with opened(path) as wire:
        other = lock(path)
        appends = [asyncio.get_running_loop().create_task(wire.append(0, b"%d" % number)) for number in range(3)]
        await asyncio.wait({appends[0]})
        other.close()
        errors = await asyncio.gather(*appends, return_exceptions=True)
        assert [(type(error), getattr(error, "sent", None)) for error in errors] == [(WireLost, False)] * 3
        assert await wire.bounds(0) == StreamBounds(first=1, next=1, identity=wire._identity)


async def test_late_append_is_followed_by_none(path: Path) -> None:
    async with opened(path, append_timeout_s=0.01) as wire:
        other = lock(path)
        with pytest.raises(WireLost, match="does not answer") as caught:
            await wire.append(0, b"late")
        assert caught.value.sent
        other.close()
        for _ in range(100):
            with pytest.raises(WireLost):
                await wire.append(0, b"later")
    async with opened(path) as wire:
        end = (await wire.bounds(0)).next
        assert [data for _, data in await scanned(wire, 1, end - 1)] in ([], [b"late"])


async def test_new_file_may_be_locked_for_a_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does not wait for a lock when it sets the journal mode. Another process sets it then."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")

    @contextmanager
    def suppress_and_unlock(error: type[Exception]) -> Iterator[None]:
        with suppress(error):
            yield
        other.close()

    monkeypatch.setattr(_database, "contextlib", SimpleNamespace(suppress=suppress_and_unlock))
    async with opened(path) as wire:
        assert await wire.append(0, b"x") == 1


@pytest.mark.usefixtures("impatient")
async def test_locked_file_is_reported(path: Path) -> None:
    async with opened(path):
        other = lock(path)
        with pytest.raises(WireLost, match="locked"):
            async with opened(path):
                pass
        other.close()


async def test_close_does_not_wait_for_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as wire:
        other, started, connection = lock(path), threading.Event(), wire._writer._open

        def start() -> sqlite3.Connection:
            started.set()
            return connection()

        monkeypatch.setattr(wire._writer, "_open", start)
        appends = [asyncio.get_running_loop().create_task(wire.append(0, b"x")) for _ in range(2)]
        await asyncio.to_thread(started.wait, HANG_S)
        await wire.close()
        assert not appends[0].done()
        other.close()
        assert [type(outcome) for outcome in await asyncio.gather(*appends, return_exceptions=True)] == [int, WireLost]


async def test_closed_wire_refuses_everything(path: Path) -> None:
    async with opened(path) as wire:
        pass
    for use in (wire.append(0, b"x"), wire.bounds(0), scanned(wire, 1, 1), followed(wire, 1, 1)):
        with pytest.raises(WireLost, match="closed"):
            await use


async def test_replaced_file_ends_wire(path: Path) -> None:
    async with opened(path) as wire:
        await wire.bounds(0)
        os.replace(path, f"{path}-old")
        os.close(os.open(path, os.O_CREAT))
        for use in (wire.append(0, b"y"), wire.bounds(0)):
            with pytest.raises(WireLost, match="was replaced"):
                await use
