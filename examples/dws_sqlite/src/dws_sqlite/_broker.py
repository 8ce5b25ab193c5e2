"""`SQLiteBroker`: the file's worker thread, the nudges, and the way between them and the node."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeVar, TypeVarTuple

from dws_core.plugin import (
    BrokerClosed,
    BrokerOverloaded,
    BrokerUnavailable,
    BrokerURL,
    Coalescer,
    GapReason,
    Head,
    History,
    InvalidBrokerURL,
    Layout,
    LogBroker,
    Offset,
    PayloadTooLarge,
    PublishOutcomeUnknown,
    ReadResult,
    Receipt,
    Record,
    TailSink,
    TopicMatch,
)
from dws_sqlite import CAPABILITIES
from dws_sqlite._store import CONTROL, GRACE_S, Draft, Store

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Sent = tuple[Draft, asyncio.Future[Receipt]]

_PAGE: Final = 1000
_MAX_WAITING_BYTES: Final = 67_108_864


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteOptions:
    """What a `sqlite://` URL may set; the README says what it means."""

    poll_s: float = 1.0
    busy_s: float = 5.0
    synchronous: Literal["normal", "full"] = "normal"


class SQLiteBroker(LogBroker):
    """Partition logs in a table of one SQLite file.

    Args:
        path: The file; it is made where it is missing, its folder is not.
        options: How to use it.
    """

    capabilities = CAPABILITIES

    def __init__(self, path: str, options: SQLiteOptions | None = None) -> None:
        self._path = path
        self._options = options or SQLiteOptions()
        self._store: Store | None = None  # while it is started

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from `sqlite:///path/to/file`."""
        if url.hosts or url.username or not url.path:
            raise InvalidBrokerURL(f"broker URL {url} is not a file.", fix="write sqlite:///path/to/file")
        return cls("/" + url.path.lstrip("/"), url.read_options(SQLiteOptions))

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Open the file, and an UDP port for nudges."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "dws-sqlite")
        self._node, self._sink, self._seq = node, sink, 0
        self._tailed: frozenset[int] = frozenset()
        self._pending: set[asyncio.Future[Receipt]] = set()
        self._polling = self._poll_again = self._degraded = False
        self._coalescer: Coalescer[Sent] = Coalescer(
            self._write, call_soon=self._loop.call_soon, max_items=1000, max_in_flight=1
        )
        try:
            store = await self._run(
                lambda: Store(
                    self._path, layout, busy_s=self._options.busy_s, synchronous=self._options.synchronous
                )
            )
        except BaseException:
            self._thread.shutdown()
            raise
        self._store = store
        self._seen, self._looked_at = await self._run(store.end), time.monotonic()
        self._nudges, _ = await self._loop.create_datagram_endpoint(
            lambda: _Nudged(self._poll), local_addr=("127.0.0.1", 0)
        )
        self._port: int = self._nudges.get_extra_info("sockname")[1]
        await self._run(store.join, node, self._port)
        self._timer = self._loop.call_later(self._options.poll_s, self._tick)
        self._next_join = time.monotonic() + GRACE_S / 4
        sink.on_state("live", f"file {self._path}")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Write what waits, fail what could not be written, close the file."""
        if (store := self._store) is None:
            return
        self._store = None
        self._timer.cancel()
        if self._pending:
            await asyncio.wait(self._pending, timeout=drain_s)
        for _, future in self._coalescer.drain():
            _fail(future, _closed())
        self._nudges.close()
        try:
            await self._run(store.leave, self._node)
        finally:
            await self._run(store.close)
            self._thread.shutdown()
            self._sink.on_state("closed", "stopped")

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Hand these partitions to the sink; all share one place in the file."""
        store = self._started()
        self._tailed = partitions
        return {p: Head(partition=p, epoch=store.epoch, offset=self._seen) for p in partitions}

    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Queue for the tick's transaction."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if self._store is None:
            future.set_exception(_closed())
        elif len(payload) > (limit := self.capabilities.max_payload_bytes):
            future.set_exception(PayloadTooLarge(len(payload), limit, where="SQLite broker"))
        elif self._coalescer.waiting_bytes > _MAX_WAITING_BYTES:
            future.set_exception(BrokerOverloaded("too much waits for the SQLite file.", fix="slow down"))
        else:
            self._seq += 1
            draft = Draft(
                partition=partition,
                topic=topic,
                payload=payload,
                publisher=self._node,
                seq=self._seq,
                size=history.size,
                ttl_s=history.ttl_s,
                key=key,
            )
            self._submit(draft, future, deadline_s)
        return future

    async def read(
        self,
        partition: int,
        *,
        since: Offset,
        until: Offset,
        epoch: str,
        topics: Collection[str] | TopicMatch,
        limit: int,
        max_bytes: int,
    ) -> ReadResult:
        """Read in the worker thread; `topics` is called there."""
        store = self._started()
        if epoch != store.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        wanted = topics if callable(topics) else frozenset(topics).__contains__
        return await self._run(store.read, partition, since, until, wanted, limit, max_bytes)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """All partitions share the file's end: offsets have holes."""
        store = self._started()
        end = await self._run(store.end)
        return {p: Head(partition=p, epoch=store.epoch, offset=end) for p in partitions}

    async def send_control(self, payload: bytes) -> None:
        """Control messages go the way of messages, in a partition of their own."""
        self._started()
        future: asyncio.Future[Receipt] = self._loop.create_future()
        draft = Draft(partition=CONTROL, topic="", payload=payload, publisher=self._node, seq=0)
        self._submit(draft, future, 10.0)
        await future

    async def forget(self, topic: str) -> None:
        """Delete a topic's history."""
        await self._run(self._started().forget, topic)

    def _started(self) -> Store:
        if self._store is None:
            raise _closed()
        return self._store

    async def _run(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job in the worker thread: the one place where SQLite's errors become ours."""
        try:
            return await self._loop.run_in_executor(self._thread, job, *args)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"broker sqlite://{self._path} cannot be used: {error}.", fix="check that the folder exists and is writable"
        )

    # -- writing

    def _submit(self, draft: Draft, future: asyncio.Future[Receipt], deadline_s: float) -> None:
        timer = self._loop.call_later(deadline_s, _fail, future, PublishOutcomeUnknown(draft.topic))
        future.add_done_callback(lambda _: timer.cancel())
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        self._coalescer.add(0, (draft, future), len(draft.payload))

    def _write(self, _: int, batch: list[Sent]) -> None:
        store = self._store_of_writes
        job = self._loop.run_in_executor(self._thread, store.append, [draft for draft, _ in batch])
        job.add_done_callback(lambda job: self._written(job, [future for _, future in batch]))
