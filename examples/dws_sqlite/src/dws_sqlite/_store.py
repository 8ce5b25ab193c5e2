"""The file. All code of this module runs in the broker's worker thread and uses no event loop."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dws_core.plugin import GapReason, Layout, LayoutMismatch, Offset, ReadResult, ReadSpan, Receipt, Record

GRACE_S: Final = 60.0
"""Minimum age of a deleted row in seconds, regardless of its history, so that every node has the time to read it."""

CONTROL: Final = -1
"""Partition of control messages."""

_RETRY_S: Final = 0.01
_KEY_MS: Final = 60_000
_GRACE_MS: Final = int(GRACE_S * 1000)
_MAX_DROPPED: Final = 10_000

# Rows without history, that is ephemeral and control messages, have a `size` of 0. They are kept for `GRACE_S` only.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels (channel TEXT PRIMARY KEY, partitions INT, shard_levels INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (id BLOB PRIMARY KEY, channel TEXT, port INT, seen_ms INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    channel TEXT, topic TEXT, key TEXT, "offset" INT, expires_ms INT, PRIMARY KEY (channel, topic, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT, partition INT, topic TEXT, payload BLOB, ts_ms INT,
    publisher BLOB, seq INT, key TEXT, size INT, expires_ms INT
);
CREATE INDEX IF NOT EXISTS by_topic ON messages (channel, topic, id);
CREATE INDEX IF NOT EXISTS by_expiry ON messages (expires_ms);
CREATE TABLE IF NOT EXISTS dropped (
    channel TEXT, topic TEXT, partition INT, id INT, PRIMARY KEY (channel, topic)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dropped_by_id ON dropped (id);
CREATE TRIGGER IF NOT EXISTS remember AFTER DELETE ON messages WHEN old.size > 0 BEGIN
    INSERT INTO dropped VALUES (old.channel, old.topic, old.partition, old.id)
    ON CONFLICT DO UPDATE SET id = max(id, excluded.id);
END;
"""
_FIELDS: Final = "id, partition, topic, payload, ts_ms, publisher, seq, key, size, expires_ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that is not stored yet."""

    partition: int
    topic: str
    payload: bytes
    publisher: bytes
    seq: int
    size: int = 0
    ttl_s: float = 0.0
    key: str | None = None


class Store:
    """One channel in the file.

    Raises:
        LayoutMismatch: The file has this channel with another layout.
        sqlite3.Error: The file cannot be opened.
    """

    def __init__(self, path: str, layout: Layout, busy_s: float, synchronous: str) -> None:
        self._channel = layout.channel
        self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
        try:
            self._use_write_ahead_log(busy_s)
            self._db.execute(f"PRAGMA synchronous = {synchronous}")
            with self._transaction():
                for statement in _split(_SCHEMA):
                    self._db.execute(statement)
                self._one("INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('floor', 0)", secrets.token_hex(8))
                self._check_layout(layout)
            self.epoch: str = self._one("SELECT value FROM meta WHERE name = 'epoch'")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def join(self, node: bytes, port: int) -> None:
        """Store the port of a node, and delete old rows. Call it again before `GRACE_S` has passed."""
        now = _now_ms()
        with self._transaction():
            self._one("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?)", node, self._channel, port, now)
            self._one("DELETE FROM nodes WHERE seen_ms < ?", now - _GRACE_MS)
            self._one("DELETE FROM keys WHERE expires_ms < ?", now)
            self._one("DELETE FROM messages WHERE expires_ms < ?", now - _GRACE_MS)
            limit = self._one("SELECT id FROM dropped ORDER BY id DESC LIMIT 1 OFFSET ?", _MAX_DROPPED)
            if limit is not None:
                self._one("DELETE FROM dropped WHERE id <= ?", limit)
                self._one("UPDATE meta SET value = max(value, ?) WHERE name = 'floor'", limit)

    def leave(self, node: bytes) -> None:
        """Delete the port of a node."""
        self._one("DELETE FROM nodes WHERE id = ?", node)

    def append(self, drafts: Sequence[Draft]) -> tuple[list[Receipt], list[int]]:
        """Store messages in one transaction. Return their receipts, and the ports of the channel's nodes."""
        with self._transaction():
            receipts = [self._append(draft, _now_ms()) for draft in drafts]
        ports = self._db.execute("SELECT port FROM nodes WHERE channel = ?", (self._channel,))
        return receipts, [port for (port,) in ports]

    def end(self) -> Offset:
        """Return the highest offset that was ever assigned in the file."""
        return self._one("SELECT seq FROM sqlite_sequence WHERE name = 'messages'") or 0

    def after(self, seen: Offset, limit: int) -> tuple[Offset, list[tuple[int, Record]]]:
        """Return the offset that this read has reached, and the messages after `seen` with their partitions."""
        with self._transaction("DEFERRED"):
            rows = self._db.execute(
                f"SELECT {_FIELDS} FROM messages WHERE id > ? AND channel = ? ORDER BY id LIMIT ?",
                (seen, self._channel, limit),
            ).fetchall()
            end = rows[-1][0] if len(rows) == limit else self.end()
        return end, [(row[1], _record(row)) for row in rows]

    def read(self, span: ReadSpan) -> ReadResult:
        """Return all records of a span, or a gap. The caller has checked the epoch. See `LogBroker.read`."""
        since, wanted = span.since, span.topics if callable(span.topics) else frozenset(span.topics).__contains__
        self._db.create_function("wanted", 1, wanted)
        with self._transaction("DEFERRED"):
            if self.end() < since:
                return ReadResult(gap=GapReason.AHEAD)
            if since >= span.until:
                return ReadResult()
            lost = "SELECT 1 FROM dropped WHERE channel = ? AND partition = ? AND id > ? AND wanted(topic) LIMIT 1"
            floor = self._one("SELECT value FROM meta WHERE name = 'floor'")
            if floor > since or self._one(lost, self._channel, span.partition, since):
                return ReadResult(gap=GapReason.TRIMMED)
            rows = self._db.execute(
                f"SELECT {_FIELDS} FROM messages WHERE channel = ? AND partition = ? AND id > ? AND size > 0 "
                "AND wanted(topic) ORDER BY id DESC",
                (self._channel, span.partition, since),
            )
            return _select(rows, span.until, span.limit, span.max_bytes)

    def forget(self, topic: str) -> None:
        """Drop the history of a topic. The rows are kept for `GRACE_S`, because some node may not have read them."""
        with self._transaction():
            self._one(
                "INSERT INTO dropped SELECT channel, topic, partition, max(id) FROM messages WHERE channel = ? AND "
                "topic = ? AND size > 0 GROUP BY channel, topic, partition ON CONFLICT DO UPDATE SET id = excluded.id",
                *(self._channel, topic),
            )
            statement = "UPDATE messages SET size = 0, expires_ms = ts_ms WHERE channel = ? AND topic = ?"
            self._one(statement, self._channel, topic)

    def _append(self, draft: Draft, now: int) -> Receipt:
        place = (self._channel, draft.topic, draft.key)
        if draft.key is not None:
            first = self._db.execute(
                'SELECT "offset" FROM keys WHERE channel = ? AND topic = ? AND key = ? AND expires_ms > ?',
                (*place, now),
            ).fetchone()
            if first is not None:
                return Receipt(epoch=self.epoch, offset=first[0], duplicate=True)
        row = self._db.execute(
            "INSERT INTO messages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._channel, *_columns(draft, now)),
        ).lastrowid
        offset = row if draft.size else None
        if draft.key is not None:
            self._one("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)", *place, offset, now + _KEY_MS)
        if draft.size:
            self._one(
                "DELETE FROM messages WHERE channel = ?1 AND topic = ?2 AND size > 0 AND ts_ms < ?3 AND id <= (SELECT id "
                "FROM messages WHERE channel = ?1 AND topic = ?2 AND size > 0 ORDER BY id DESC LIMIT 1 OFFSET ?4)",
                *(self._channel, draft.topic, now - _GRACE_MS, draft.size),
            )
        return Receipt(epoch=self.epoch, offset=offset)

    def _use_write_ahead_log(self, busy_s: float) -> None:
        # SQLite does not wait here. If two nodes open a new file at the same time, one of them gets SQLITE_BUSY.
        until = time.monotonic() + busy_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
                time.sleep(_RETRY_S)

    def _check_layout(self, layout: Layout) -> None:
        mine = (layout.partitions, layout.shard_levels)
        self._one("INSERT OR IGNORE INTO channels VALUES (?, ?, ?)", layout.channel, *mine)
        stored = self._db.execute(
            "SELECT partitions, shard_levels FROM channels WHERE channel = ?", (layout.channel,)
        ).fetchone()
        if stored != mine:
            raise LayoutMismatch(
                f"channel {layout.channel!r} has partitions={stored[0]}, shard_levels={stored[1]} in the file, not "
                f"partitions={mine[0]}, shard_levels={mine[1]}.",
                fix="use the same layout on all nodes of the channel, or use another file",
            )

    def _one(self, statement: str, *values: Any) -> Any:
        row = self._db.execute(statement, values).fetchone()
        return row and row[0]

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        # IMMEDIATE takes the write lock at the start. Taking it later in a transaction can fail without any conflict.
        self._db.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _select(rows: Iterator[Any], until: Offset, limit: int, max_bytes: int) -> ReadResult:
    """Return the records of rows that come newest first.

    The newest row of a topic states how many rows the topic keeps. A row beyond that number, or a row that has expired,
    is a gap.
    """
    now, found, room = _now_ms(), list[Record](), max_bytes
    left: dict[str, int] = {}
    for row in rows:
        id_, _, topic, payload, *_, size, expires_ms = row
        left[topic] = left.get(topic, size) - 1
        if left[topic] < 0 or (expires_ms <= now and id_ <= until):
            return ReadResult(gap=GapReason.TRIMMED)
        if id_ <= until:
            found.append(_record(row))
            room -= len(payload)
            if len(found) > limit or room < 0:
                return ReadResult(gap=GapReason.TOO_MANY)
    return ReadResult(records=tuple(reversed(found)))


def _columns(draft: Draft, now: int) -> tuple[Any, ...]:
    expires_ms = now + int(draft.ttl_s * 1000)
    head = (draft.partition, draft.topic, draft.payload, now)
    return (*head, draft.publisher, draft.seq, draft.key, draft.size, expires_ms)


def _record(row: Any) -> Record:
    id_, _, topic, payload, ts_ms, publisher, seq, key, size, _ = row
    offset = id_ if size else None
    return Record(offset=offset, topic=topic, payload=payload, ts_ms=ts_ms, publisher=publisher, seq=seq, key=key)


def _split(script: str) -> Iterator[str]:
    """Split into statements. `executescript` would commit the transaction it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
