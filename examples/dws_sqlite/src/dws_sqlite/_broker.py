"""`SQLiteBroker`: the interface that the core calls. `_store.py` uses the file, and `_tail.py` delivers new rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from dws_core.plugin import (
    BrokerClosed,
    BrokerOverloaded,
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
    ReadSpan,
    Receipt,
    TailSink,
)
from dws_sqlite import CAPABILITIES
from dws_sqlite._store import CONTROL, Draft, Store
from dws_sqlite._tail import Tail
from dws_sqlite._worker import Worker

QueuedPublish: TypeAlias = tuple[Draft, asyncio.Future[Receipt]]

_MAX_QUEUED_BYTES: Final = 67_108_864


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteOptions:
    """The options of a `sqlite://` URL. The README explains them."""

    poll_s: float = 1.0
    busy_s: float = 5.0
    synchronous: Literal["normal", "full"] = "normal"


class SQLiteBroker(LogBroker):
    """Partition logs in a table of one SQLite file.

    Args:
        path: Path of the file. A missing file is created, a missing folder is not.
        options: Options of the URL. If None, the defaults.
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
        """Open the file and start to tail it."""
        options = self._options
        self._node, self._sink, self._seq = node, sink, 0
        self._loop = asyncio.get_running_loop()
        self._unanswered: set[asyncio.Future[Receipt]] = set()
        self._coalescer: Coalescer[QueuedPublish] = Coalescer(
            self._write, call_soon=self._loop.call_soon, max_items=1000, max_in_flight=1
        )
        with contextlib.ExitStack() as undo:
            self._worker = Worker(self._path)
            undo.callback(self._worker.close)
            opened: list[Store] = []  # filled in the thread, so that a cancelled start can close the file
            undo.callback(self._worker.submit, _close, opened)
            await self._worker.run(
                lambda: opened.append(Store(self._path, layout, options.busy_s, options.synchronous))
            )
            self._store = opened[0]
            self._tail = Tail(node, self._store, self._worker, sink, options.poll_s)
            undo.callback(self._tail.close)
            await self._tail.open()
            undo.pop_all()
        self._live = True
        sink.on_state("live", f"file {self._path}")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Write the queued publishes within `drain_s` seconds, fail the rest, and close the file."""
        if not self._live:
            return
        self._live = False
        if self._unanswered:
            await asyncio.wait(self._unanswered, timeout=drain_s)
        for _, future in self._coalescer.drain():
            _fail(future, _closed())
        self._tail.close()
        try:
            await self._worker.run(self._store.leave, self._node)
        finally:
            await self._worker.run(self._store.close)
            self._worker.close()
            self._sink.on_state("closed", "stopped")

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Deliver these partitions to the sink. All share one position in the file, that of the tail."""
        self._check_live()
        self._tail.partitions = partitions
        return self._heads(partitions, self._tail.seen)

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
        """Queue for the next transaction. It stores all messages of a tick, or of the time that a write takes."""
        limit = self.capabilities.max_payload_bytes
        if not self._live:
            return _failed(_closed())
        if len(payload) > limit:
            return _failed(PayloadTooLarge(len(payload), limit, where="SQLite broker"))
        if self._coalescer.waiting_bytes > _MAX_QUEUED_BYTES:
            return _failed(
                BrokerOverloaded(f"{_MAX_QUEUED_BYTES} bytes wait for the SQLite file.", fix="publish less at once")
            )
        self._seq += 1
        draft = Draft(
            partition=partition,
            topic=topic,
            payload=payload,
            publisher=self._node,
            seq=self._seq,
            size=history.size,
            ttl_s=history.ttl_s if history.size else 0.0,
            key=key,
        )
        return self._submit(draft, deadline_s)

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read in the worker thread. If `topics` is a function, it is called in that thread."""
        self._check_live()
        if span.epoch != self._store.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        return await self._worker.run(self._store.read, span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the end of the file. Because offsets may have holes, it is the end of every partition."""
        self._check_live()
        return self._heads(partitions, await self._worker.run(self._store.end))

    async def send_control(self, payload: bytes) -> None:
        """Store the control message like other messages, in a separate partition."""
        self._check_live()
        await self._submit(Draft(partition=CONTROL, topic="", payload=payload, publisher=self._node, seq=0), 10.0)

    async def forget(self, topic: str) -> None:
        """Drop the history of a topic."""
        self._check_live()
        await self._worker.run(self._store.forget, topic)

    def _check_live(self) -> None:
        if not self._live:
            raise _closed()

    def _heads(self, partitions: Collection[int], offset: Offset) -> dict[int, Head]:
        return {p: Head(partition=p, epoch=self._store.epoch, offset=offset) for p in partitions}

    def _submit(self, draft: Draft, deadline_s: float) -> asyncio.Future[Receipt]:
        stored: asyncio.Future[Receipt] = self._loop.create_future()
        # The caller may cancel the returned future. The message is still stored.
        returned: asyncio.Future[Receipt] = self._loop.create_future()
        timer = self._loop.call_later(deadline_s, _expire, returned, draft.topic)
        self._unanswered.add(stored)
        stored.add_done_callback(self._unanswered.discard)
        stored.add_done_callback(lambda stored: _copy_result(stored, returned))
        returned.add_done_callback(lambda _: timer.cancel())
        self._coalescer.add(0, (draft, stored), len(draft.payload))
        return returned

    def _write(self, _: int, batch: list[QueuedPublish]) -> None:
        job = self._worker.submit(self._store.append, [draft for draft, _ in batch])
        job.add_done_callback(lambda job: self._on_written(job, [future for _, future in batch]))

    def _on_written(
        self, job: asyncio.Future[tuple[list[Receipt], list[int]]], futures: list[asyncio.Future[Receipt]]
    ) -> None:
        self._coalescer.answered(0)
        if (error := job.exception()) is not None:
            for future in futures:
                _fail(future, self._worker.wrap(error))  # the transaction was rolled back, so nothing is stored
            return
        receipts, ports = job.result()
        for future, receipt in zip(futures, receipts, strict=True):
            if not future.done():
                future.set_result(receipt)
        self._tail.nudge(ports)


def _close(opened: list[Store]) -> None:
    for store in opened:
        store.close()


def _closed() -> BrokerClosed:
    return BrokerClosed(
        "the SQLite broker is not started.", fix="call start() first, and do not use the broker after stop()"
    )


def _failed(error: Exception) -> asyncio.Future[Receipt]:
    future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _fail(future: asyncio.Future[Receipt], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _copy_result(stored: asyncio.Future[Receipt], returned: asyncio.Future[Receipt]) -> None:
    error = stored.exception()
    if returned.done():
        return
    if error is not None:
        returned.set_exception(error)
    else:
        returned.set_result(stored.result())


def _expire(future: asyncio.Future[Receipt], topic: str) -> None:
    _fail(future, PublishOutcomeUnknown(topic))
