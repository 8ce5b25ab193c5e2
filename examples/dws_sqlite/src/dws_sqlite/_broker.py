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
    BrokerState,
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
Written = asyncio.Future[tuple[list[Receipt], list[int]]]

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
        self._live = False

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
            await self._open(layout)
        except BaseException:
            self._thread.shutdown()
            raise
        self._live = True
        self._join_at = time.monotonic() + GRACE_S / 4
        self._timer = self._loop.call_later(self._options.poll_s, self._tick)
        sink.on_state("live", f"file {self._path}")

    async def _open(self, layout: Layout) -> None:
        options = self._options
        self._store = await self._run(Store, self._path, layout, options.busy_s, options.synchronous)
        self._seen, self._looked_at = await self._run(self._store.end), time.monotonic()
        self._nudges, _ = await self._loop.create_datagram_endpoint(
            lambda: _Nudged(self._poll), local_addr=("127.0.0.1", 0)
        )
        self._port: int = self._nudges.get_extra_info("sockname")[1]
        await self._run(self._store.join, self._node, self._port)

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Write what waits, fail what could not be written, close the file."""
        if not self._live:
            return
        self._live = False
        self._timer.cancel()
        if self._pending:
            await asyncio.wait(self._pending, timeout=drain_s)
        for _, future in self._coalescer.drain():
            _fail(future, _closed())
        self._nudges.close()
        try:
            await self._run(self._store.leave, self._node)
        finally:
            await self._run(self._store.close)
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
        if not self._live:
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
        if not self._live:
            raise _closed()
        return self._store

    async def _run(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job in the worker thread: the one place where SQLite's errors become ours."""
        try:
            return await self._loop.run_in_executor(self._thread, job, *args)
        except sqlite3.Error as error:
            raise self._wrap(error) from error

    def _wrap(self, error: BaseException) -> BrokerUnavailable:
        wrapped = BrokerUnavailable(
            f"broker sqlite://{self._path} cannot be used: {error}.", fix="check that the folder exists and is writable"
        )
        wrapped.__cause__ = error
        return wrapped

    # -- writing

    def _submit(self, draft: Draft, future: asyncio.Future[Receipt], deadline_s: float) -> None:
        timer = self._loop.call_later(deadline_s, _too_late, future, draft.topic)
        self._pending.add(future)
        future.add_done_callback(lambda _: timer.cancel())
        future.add_done_callback(self._pending.discard)
        self._coalescer.add(0, (draft, future), len(draft.payload))

    def _write(self, _: int, batch: list[Sent]) -> None:
        job = self._loop.run_in_executor(self._thread, self._store.append, [draft for draft, _ in batch])
        job.add_done_callback(lambda job: self._written(job, [future for _, future in batch]))

    def _written(self, job: Written, futures: list[asyncio.Future[Receipt]]) -> None:
        self._coalescer.answered(0)
        if (error := job.exception()) is not None:
            for future in futures:
                _fail(future, self._wrap(error))
            return
        receipts, ports = job.result()
        for future, receipt in zip(futures, receipts, strict=True):
            if not future.done():
                future.set_result(receipt)
        for port in ports:
            self._nudges.sendto(b"\0", ("127.0.0.1", port))

    # -- reading what is new

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._options.poll_s, self._tick)
        if time.monotonic() >= self._join_at:
            self._join_at += GRACE_S / 4
            job = self._loop.run_in_executor(self._thread, self._store.join, self._node, self._port)
            job.add_done_callback(self._note)
        self._poll()

    def _poll(self) -> None:
        if self._polling:
            self._poll_again = True
        elif self._live:
            self._polling, self._poll_again = True, False
            asked_at = time.monotonic()
            job = self._loop.run_in_executor(self._thread, self._store.after, self._seen, _PAGE)
            job.add_done_callback(lambda job: self._looked(job, asked_at))

    def _looked(self, job: asyncio.Future[tuple[Offset, list[tuple[int, Record]]]], asked_at: float) -> None:
        self._polling = False
        if not self._note(job):
            return  # the next tick tries again
        end, found = job.result()
        lo, self._seen = self._seen, end
        late, self._looked_at = time.monotonic() - self._looked_at > GRACE_S, asked_at
        if self._poll_again or len(found) == _PAGE:
            self._poll()
        for partition in sorted(self._tailed) if end > lo else ():
            if late:
                head = Head(partition=partition, epoch=self._store.epoch, offset=end)
                self._tell(self._sink.on_discontinuity, partition, GapReason.TRIMMED, head)
            else:
                records = [record for p, record in found if p == partition]
                self._tell(self._sink.on_records, partition, self._store.epoch, lo, end, records)
        for partition, record in found:
            if partition == CONTROL:
                self._tell(self._sink.on_control, record.publisher, record.payload)

    def _note(self, job: asyncio.Future[Any]) -> bool:
        """Take a background job's result; tell the node when the file becomes unusable and usable again."""
        error = job.exception()
        if self._live and (error is not None) is not self._degraded:
            self._degraded = error is not None
            state: BrokerState = "degraded" if self._degraded else "live"
            self._tell(self._sink.on_state, state, str(self._wrap(error)) if error else f"file {self._path}")
        return self._live and error is None

    def _tell(self, call: Callable[[*Ts], None], *args: *Ts) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 -- foreign code; what else there is to tell must go on
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})


class _Nudged(asyncio.DatagramProtocol):
    """Looks when somebody says so. What arrives is not read."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Look."""
        self._look()


def _closed() -> BrokerClosed:
    return BrokerClosed("the SQLite broker is not started.", fix="call start() first, and nothing after stop()")


def _too_late(future: asyncio.Future[Receipt], topic: str) -> None:
    _fail(future, PublishOutcomeUnknown(topic))


def _fail(future: asyncio.Future[Receipt], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
