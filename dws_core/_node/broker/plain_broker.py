"""A plain `BrokerInterface` as a log without history, so that the node has one path."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from typing import Any, Self

import msgspec

from dws_core._errors import (
    BrokerClosed,
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    DWSError,
    PayloadTooLarge,
    PublishOutcomeUnknown,
)
from dws_core._log.backoff import Backoff
from dws_core._log.contract import LogBroker, LogCapabilities, TailSink
from dws_core._log.plain import BrokerInterface
from dws_core._log.records import GapReason, Head, History, Layout, ReadResult, ReadSpan, Receipt, Record
from dws_core._tasks import Tasks
from dws_core._url import BrokerURL
from dws_core._wire.codecs import JSONCodec
from dws_core._wire.envelope import header_of, open_envelope
from dws_core._wire.message import Message
from dws_core._wire.node_topics import ALL, conn_id_of, conn_topic

logger = logging.getLogger("dws")

_MAX_WAITING = 10_000
_IDLE_S = 0.01
"""Pause after a `get_message` that had nothing: some brokers of the original library return at once."""


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    topic: str
    publisher: bytes
    seq: int
    payload: bytes


class AdaptedBroker(LogBroker):
    """Runs a `BrokerInterface` on one channel. Records have no offsets: there is nothing to resume from."""

    capabilities = LogCapabilities(recovery=False, per_topic_retention=False)

    def __init__(self, inner: BrokerInterface) -> None:
        self.inner = inner
        self._original_style = type(inner).deliveries is BrokerInterface.deliveries
        self._tasks = Tasks()
        self._started = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Wire).decode

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Not used: the inner broker is built from the URL."""
        raise NotImplementedError

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect and subscribe to the channel."""
        self._node, self._sink, self._channel, self._seq = node, sink, layout.channel, 0
        self._waiting: asyncio.Queue[tuple[str, Any, asyncio.Future[Receipt]]] = asyncio.Queue(_MAX_WAITING)
        await self._open()
        self._started = True
        self._tasks.spawn(self._tail(), name="tail of the broker")
        self._tasks.spawn(self._write(), name="publishes to the broker")
        sink.on_state("live", f"subscribed to channel {layout.channel!r}")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Write what waits, disconnect, fail the rest."""
        if not self._started:
            return
        self._started = False
        try:
            async with asyncio.timeout(drain_s):
                await self._waiting.join()
        except TimeoutError:
            logger.warning("%d publishes could not be written before the broker was stopped", self._waiting.qsize())
        try:
            await self.inner.disconnect()
        finally:
            await self._tasks.stop()
            while not self._waiting.empty():
                self._settle(self._waiting.get_nowait()[2], BrokerClosed("the broker was stopped."))
            self._sink.on_state("closed", "stopped")

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """One channel carries everything; nothing to choose."""
        return await self.heads(partitions)

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
        """Queue for the writer; `key` cannot be honoured without a log and is ignored."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        limit = self.inner.capabilities.max_payload_bytes
        if not self._started:
            self._settle(future, BrokerClosed("publish before start or after stop.", fix="start the manager first"))
        elif len(payload) > limit:
            self._settle(future, PayloadTooLarge(len(payload), limit))
        elif self._waiting.full():
            self._settle(future, BrokerOverloaded(f"{_MAX_WAITING} publishes wait for the broker.", fix="slow down"))
        else:
            self._seq += 1
            self._waiting.put_nowait((topic, self._message(topic, payload), future))
        return future

    async def read(self, span: ReadSpan) -> ReadResult:
        """Nothing is kept."""
        return ReadResult(gap=GapReason.UNAVAILABLE)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Nothing is kept: every head is at 0."""
        return {p: Head(partition=p, epoch="0", offset=0) for p in partitions}

    async def send_control(self, payload: bytes) -> None:
        """Not carried by a plain broker."""

    # -- both ways

    async def _open(self) -> None:
        try:
            await self.inner.connect()
            await self._subscribe()
        except DWSError:
            raise
        except Exception as error:
            raise BrokerUnavailable(
                f"broker {type(self.inner).__qualname__} could not connect: {type(error).__name__}: {error}.",
                fix="check that the broker runs and its address is right",
            ) from error

    async def _subscribe(self) -> None:
        try:
            await self.inner.subscribe(self._channel)
        except BaseException:
            with contextlib.suppress(Exception):  # what failed first is what matters
                await self.inner.disconnect()
            raise

    async def _write(self) -> None:
        while True:
            topic, message, future = await self._waiting.get()
            try:
                await self.inner.publish(self._channel, message)
            except asyncio.CancelledError:  # stopped while the broker had it in its hands
                self._settle(future, PublishOutcomeUnknown(topic))
                raise
            except BrokerError as error:
                self._settle(future, error)
            except Exception as error:  # noqa: BLE001 -- a plugin may raise anything; the publisher is told
                wrapped = BrokerError(f"broker {type(self.inner).__qualname__} failed to publish: {error}")
                wrapped.__cause__ = error
                self._settle(future, wrapped)
            else:
                if not future.done():
                    future.set_result(Receipt(epoch="", offset=None))
            finally:
                self._waiting.task_done()

    async def _tail(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._read_all(backoff)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the tail comes back and announces the gap
                logger.warning("the broker's deliveries broke off: %r", error)
            if not self._started:
                return
            self._sink.on_state("degraded", "the broker's deliveries broke off; reconnecting")
            await self._reopen(backoff)
            self._sink.on_discontinuity(0, GapReason.UNAVAILABLE, Head(partition=0, epoch="0", offset=0))
            self._sink.on_state("live", f"subscribed to channel {self._channel!r} again")

    async def _reopen(self, backoff: Backoff) -> None:
        while True:
            await asyncio.sleep(backoff.next_s())
            try:
                await self._open()
            except DWSError as error:
                logger.warning("%s", error)
            else:
                return

    async def _read_all(self, backoff: Backoff) -> None:
        if self._original_style:
            while True:
                message = await self.inner.get_message()
                if message is None:
                    await asyncio.sleep(_IDLE_S)
                else:
                    self._deliver(self._record_of_message(message))
                    backoff.reset()
        else:
            async for delivery in self.inner.deliveries():
                self._deliver(self._record_of_bytes(delivery.payload))
                backoff.reset()

    def _deliver(self, record: Record | None) -> None:
        if record is not None:
            self._sink.on_records(0, "0", 0, 0, (record,))

    # -- what travels

    def _message(self, topic: str, payload: bytes) -> Any:
        if not self._original_style:
            return self._encode(_Wire(topic, self._node, self._seq, payload))
        codec, data = open_envelope(payload)
        kind = {"type": "send", "topic": topic, "conn_id": None}
        if topic == ALL:
            kind = {"type": "broadcast", "topic": None, "conn_id": None}
        elif (conn_id := conn_id_of(topic)) is not None:
            kind = {"type": "send_by_conn_id", "topic": None, "conn_id": conn_id}
        value = JSONCodec().decode(data) if codec == "json" else {"codec": codec, "bytes": data}
        return {**kind, "data": value, "dws": 1}

    def _record_of_bytes(self, payload: bytes) -> Record | None:
        try:
            wire = self._decode(payload)
        except msgspec.MsgspecError:
            logger.exception("no dws message on channel %r: %d bytes", self._channel, len(payload))
            return None
        return Record(
            offset=None, topic=wire.topic, payload=wire.payload, ts_ms=0, publisher=wire.publisher, seq=wire.seq
        )

    def _record_of_message(self, message: Message) -> Record:
        data = message.data
        if isinstance(data, dict) and "dws" in data and "data" in data:
            data = data["data"]  # a broker of the original library takes all members but its own as data
        topic = message.topic or ALL
        if message.type == "send_by_conn_id" and isinstance(message.conn_id, str):
            topic = conn_topic(message.conn_id)
        payload = header_of("json") + JSONCodec().encode(data)
        return Record(offset=None, topic=topic, payload=payload, ts_ms=0, publisher=b"", seq=0)

    @staticmethod
    def _settle(future: asyncio.Future[Receipt], error: BrokerError) -> None:
        if not future.done():
            future.set_exception(error)
