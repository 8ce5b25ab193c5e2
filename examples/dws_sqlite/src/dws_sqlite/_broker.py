"""`SQLiteBroker`: what the core calls. The file is `_store.py`, what is new in it comes through `_tail.py`."""

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

Waiting: TypeAlias = tuple[Draft, asyncio.Future[Receipt]]

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
        """Open the file and begin to look at its end."""
        options = self._options
        self._node, self._sink, self._seq = node, sink, 0
        self._loop = asyncio.get_running_loop()
        self._unanswered: set[asyncio.Future[Receipt]] = set()
        self._coalescer: Coalescer[Waiting] = Coalescer(
            self._write, call_soon=self._loop.call_soon, max_items=1000, max_in_flight=1
        )
        with contextlib.ExitStack() as undo:
            self._worker = Worker(self._path)
            undo.callback(self._worker.close)
            opened: list[Store] = []  # filled in the thread: who is cancelled meanwhile must find it, too
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
        """Write what waits, fail what could not be written, close the file."""
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
        """Hand these partitions to the sink. All share one place in the file: where the tail is."""
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
        """Queue for the next transaction: what is published in a tick, or while one is being written, is one."""
        limit = self.capabilities.max_payload_bytes
        if not self._live:
            return _failed(_closed())
        if len(payload) > limit:
            return _failed(PayloadTooLarge(len(payload), limit, where="SQLite broker"))
        if self._coalescer.waiting_bytes > _MAX_WAITING_BYTES:
            return _failed(BrokerOverloaded("too much waits for the SQLite file.", fix="publish less at once"))
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
        """Read in the worker thread; a function `topics` is called there."""
        self._check_live()
        if span.epoch != self._store.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        return await self._worker.run(self._store.read, span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Say where the file ends: offsets have holes, so that is the end of every partition."""
        self._check_live()
        return self._heads(partitions, await self._worker.run(self._store.end))

    async def send_control(self, payload: bytes) -> None:
        """Send it the way of messages, in a partition of its own."""
        self._check_live()
        await self._submit(Draft(partition=CONTROL, topic="", payload=payload, publisher=self._node, seq=0), 10.0)

    async def forget(self, topic: str) -> None:
        """Take a topic's history away."""
        self._check_live()
        await self._worker.run(self._store.forget, topic)

    def _check_live(self) -> None:
        if not self._live:
            raise _closed()

    def _heads(self, partitions: Collection[int], offset: Offset) -> dict[int, Head]:
        return {p: Head(partition=p, epoch=self._store.epoch, offset=offset) for p in partitions}

    def _submit(self, draft: Draft, deadline_s: float) -> asyncio.Future[Receipt]:
        stored: asyncio.Future[Receipt] = self._loop.create_future()
        answer: asyncio.Future[Receipt] = (
            self._loop.create_future()
        )  # the caller may cancel it: the message goes its way
        timer = self._loop.call_later(deadline_s, _too_late, answer, draft.topic)
        self._unanswered.add(stored)
        stored.add_done_callback(self._unanswered.discard)
        stored.add_done_callback(lambda stored: _pass_on(stored, answer))
        answer.add_done_callback(lambda _: timer.cancel())
        self._coalescer.add(0, (draft, stored), len(draft.payload))
        return answer

    def _write(self, _: int, batch: list[Waiting]) -> None:
        job = self._worker.submit(self._store.append, [draft for draft, _ in batch])
        job.add_done_callback(lambda job: self._written(job, [future for _, future in batch]))

    def _written(
        self, job: asyncio.Future[tuple[list[Receipt], list[int]]], futures: list[asyncio.Future[Receipt]]
    ) -> None:
        self._coalescer.answered(0)
        if (error := job.exception()) is not None:
            for future in futures:
                _fail(future, self._worker.wrap(error))  # rolled back: certainly not stored
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
    return BrokerClosed("the SQLite broker is not started.", fix="call start() first, and nothing after stop()")


def _failed(error: Exception) -> asyncio.Future[Receipt]:
    future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _fail(future: asyncio.Future[Receipt], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _pass_on(stored: asyncio.Future[Receipt], answer: asyncio.Future[Receipt]) -> None:
    error = stored.exception()
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(stored.result())


def _too_late(future: asyncio.Future[Receipt], topic: str) -> None:
    _fail(future, PublishOutcomeUnknown(topic))
