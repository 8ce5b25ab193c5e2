"""`SQLiteWire`: a table for each partition. The id of a row is its offset."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from dws_core.plugin import Layout, LayoutMismatch, Start, StreamBounds, StreamWire, WireInfo, WireLost, WireOutOfRange
from dws_sqlite._database import Database

# The check refuses rows of other programs that nobody could read.
_ROW: Final = "(id INTEGER PRIMARY KEY AUTOINCREMENT, stored_s, data, CHECK (id < 1 << 46 AND typeof(data) = 'blob'))"
_PRUNE: Final = "DELETE FROM {0} WHERE id IN (SELECT id FROM {0} ORDER BY id LIMIT 8) AND stored_s < ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteOptions:
    """The options of a `sqlite://` URL. The README explains them."""

    poll_s: float = 0.02
    retention_s: float = 3600.0
    synchronous: Literal["normal", "full"] = "normal"


class SQLiteWire(StreamWire):
    """Two connections to the file: one to write, and one to read. Each partition is a table.

    Args:
        path: Path of the file.
        options: The options of the URL.
    """

    def __init__(self, path: str, options: SQLiteOptions) -> None:
        self._options = options
        self._writer, self._reader = Database(path, options.synchronous), Database(path, options.synchronous)
        self._appended = asyncio.Event()

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        """Create the tables of the channel, or check its layout."""
        self._append_timeout_s = append_timeout_s
        wanted = f"partitions={layout.partitions}, shard_levels={layout.shard_levels}"
        ((stored, self._identity),) = await self._writer.run(
            ("CREATE TABLE IF NOT EXISTS channels (name PRIMARY KEY, layout, identity)",),
            ("INSERT OR IGNORE INTO channels VALUES (?, ?, hex(randomblob(8)))", layout.channel, wanted),
            ("SELECT layout, identity FROM channels WHERE name = ?", layout.channel),
        )
        if stored != wanted:
            raise LayoutMismatch(f"channel {layout.channel!r} has {stored}, not {wanted}.", fix="use the same layout")
        self._tables = [f"stream_{self._identity}_{partition}" for partition in range(layout.partitions)]
        await self._writer.run(*((f"CREATE TABLE IF NOT EXISTS {table} {_ROW}",) for table in self._tables))
        return WireInfo()

    async def close(self) -> None:
        """Close both connections."""
        await asyncio.gather(self._writer.close(), self._reader.close())

    async def bounds(self, partition: int) -> StreamBounds:
        """Return the ids of the oldest row and of the next one."""
        table = self._tables[partition]
        last = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0)"
        ((first, end),) = await self._reader.run((f"SELECT min(id), {last} + 1 FROM {table}", table))
        return StreamBounds(first=first or end, next=end, identity=self._identity)

    async def append(self, partition: int, data: bytes) -> int:
        """Insert a row, and delete old ones."""
        table, now_s = self._tables[partition], time.time()
        insert = (f"INSERT INTO {table} VALUES (NULL, ?, ?) RETURNING id", now_s, data)
        try:
            async with asyncio.timeout(self._append_timeout_s):
                ((offset,),) = await self._writer.run((_PRUNE.format(table), now_s - self._options.retention_s), insert)
        except TimeoutError as error:
            self._writer.finished = True
            raise WireLost("the file does not answer") from error
        self._appended.set()
        return int(offset)

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        """Read the rows in pages, so that others can read in between."""
        while start <= stop:
            rows = await self._page(partition, start, stop)
            if not rows or rows[0][0] != start:
                raise WireOutOfRange(partition, start)
            for row in rows:
                yield row
            start += len(rows)

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        """Read new rows, after each own append and from time to time."""
        places = {partition: start if isinstance(start, int) else 0 for partition, start in starts.items()}
        while True:
            self._appended.clear()
            for partition, place in places.items():
                for offset, data in await self._page(partition, place):
                    yield partition, offset, data
                    places[partition] = offset + 1
                    self._appended.set()  # there may be more
            timer = asyncio.get_running_loop().call_later(self._options.poll_s, self._appended.set)
            await self._appended.wait()
            timer.cancel()

    async def _page(self, partition: int, start: int, stop: float = float("inf")) -> list[Any]:
        query = f"SELECT id, data FROM {self._tables[partition]} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 16"
        return await self._reader.run((query, start, stop))
