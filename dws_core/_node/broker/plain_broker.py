"""Adapts a plain `BrokerInterface` to the log contract, so that the node has a single code path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Hashable, Mapping
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
from dws_core._wire.envelope import attributes_of, header_of, open_envelope
from dws_core._wire.message import Message
from dws_core._wire.node_topics import ALL, conn_id_of, conn_topic

logger = logging.getLogger("dws")

_MAX_QUEUED = 10_000
"""Maximum number of queued publishes."""

_IDLE_S = 0.01
"""Pause after `get_message` returned None: some brokers of the original library return immediately."""


_DISCONNECT_S = 5.0
"""Time in seconds after which a broker that does not disconnect counts as disconnected."""


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    topic: str
    publisher: bytes
    seq: int
    payload: bytes


class AdaptedBroker(LogBroker):
    """Runs a `BrokerInterface` on one channel. Records have no offsets, so clients cannot resume.

    If `deliveries` raises or ends, messages may be lost. The broker is disconnected, then connected and subscribed again
    until that succeeds, and each connection of the node receives a gap. Each further attempt also begins with
    `disconnect`. A publish in the meantime raises `BrokerUnavailable`.
    """

    capabilities = LogCapabilities(recovery=False, per_topic_retention=False)

    def __init__(self, inner: BrokerInterface) -> None:
        self.inner = inner
        self._original_style = type(inner).deliveries is BrokerInterface.deliveries
        self._tasks = Tasks()
        self._started = False
        self._connected = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Wire).decode

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Raise NotImplementedError: the inner broker is built from the URL."""
        raise NotImplementedError

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect and subscribe to the channel."""
        self._node, self._sink, self._channel, self._seq = node, sink, layout.channel, 0
        self._queued: asyncio.Queue[tuple[str, Any, asyncio.Future[Receipt]]] = asyncio.Queue(_MAX_QUEUED)
        await self._open()
        self._started = True
        self._tasks.spawn(self._tail(), name="tail of the broker")
        self._tasks.spawn(self._write(), name="publishes to the broker")
        sink.on_state("live", f"subscribed to channel {layout.channel!r}")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Publish queued messages, disconnect, fail the rest."""
        if not self._started:
            return
        self._started = False
        try:
            async with asyncio.timeout(drain_s):
                await self._queued.join()
        except TimeoutError:
            logger.warning(
                "%d publishes were still queued when the broker was stopped; they fail", self._queued.qsize()
            )
        try:
            await self._hang_up()
        finally:
            await self._tasks.stop()
            if self._connected:  # the tail was about to reconnect
                await self._hang_up()
            while not self._queued.empty():
                self._settle(self._queued.get_nowait()[2], BrokerClosed("the broker was stopped."))
            self._sink.on_state("closed", "stopped")

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Return the heads. One channel carries all messages, so there is nothing to choose."""
        return await self.heads(partitions)

    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        order: Hashable | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Queue a message for the writer. `key` and `order` are ignored, because they need a log."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        limit = self.inner.capabilities.max_payload_bytes
        if not self._started:
            self._settle(future, BrokerClosed("publish before start or after stop.", fix="start the manager first"))
        elif len(payload) > limit:
            self._settle(future, PayloadTooLarge(len(payload), limit))
        elif self._queued.full():
            self._settle(
                future,
                BrokerOverloaded(f"{_MAX_QUEUED} publishes are queued for the broker.", fix="publish more slowly"),
            )
        else:
            self._seq += 1
            self._queued.put_nowait((topic, self._message(topic, payload), future))
        return future

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return the gap `unsupported`: nothing is stored."""
        return ReadResult(gap=GapReason.UNSUPPORTED)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return offset 0 for every partition: nothing is stored."""
        return {p: Head(partition=p, epoch="0", offset=0) for p in partitions}

    async def send_control(self, payload: bytes) -> None:
        """Do nothing: a plain broker carries no control messages."""

    # -- connecting, writing, reading

    async def _open(self) -> None:
        try:
            await self._connect()
        except DWSError:
            raise
        except Exception as error:
            raise BrokerUnavailable(
                f"broker {type(self.inner).__qualname__} could not connect: {type(error).__name__}: {error}.",
                fix="check that the broker is running and its address is correct",
            ) from error

    async def _connect(self) -> None:
        try:
            await self.inner.connect()
            await self.inner.subscribe(self._channel)
        except BaseException:  # also a failed connect may leave something open
            await self._hang_up()
            raise
        self._connected = True

    async def _hang_up(self) -> None:
        """Disconnect. A failure is only logged, because the connection may be the cause of it."""
        self._connected = False
        try:
            async with asyncio.timeout(_DISCONNECT_S):
                await self.inner.disconnect()
        except Exception as error:  # noqa: BLE001 -- a plugin may raise anything
            logger.warning("broker %s failed to disconnect: %r", type(self.inner).__qualname__, error)

    async def _write(self) -> None:
        while True:
            topic, message, future = await self._queued.get()
            try:
                await self._write_one(message)
            except asyncio.CancelledError:  # stopped during the publish
                self._settle(future, PublishOutcomeUnknown(topic))
                raise
            except BrokerError as error:
                self._settle(future, error)
            except Exception as error:  # noqa: BLE001 -- a plugin may raise anything, and the publisher gets it
                wrapped = BrokerError(f"broker {type(self.inner).__qualname__} failed to publish: {error}")
                wrapped.__cause__ = error
                self._settle(future, wrapped)
            else:
                if not future.done():
                    future.set_result(Receipt(epoch="", offset=None))
            finally:
                self._queued.task_done()

    async def _write_one(self, message: Any) -> None:
        if self._started and not self._connected:
            raise self._reconnecting()
        try:
            await self.inner.publish(self._channel, message)
        except BrokerClosed as error:
            if not self._started:
                raise
            raise self._reconnecting() from error

    def _reconnecting(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"broker {type(self.inner).__qualname__} has lost its connection and is reconnecting.",
            fix="publish the message again later",
        )

    async def _tail(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._read_all(backoff)
            except Exception as error:  # noqa: BLE001 -- on any failure the tail reconnects and announces a gap
                logger.warning("the broker's deliveries were interrupted: %r", error)
            if not self._started:
                return
            self._sink.on_state("degraded", "the broker's deliveries were interrupted, so it is reconnecting")
            await self._hang_up()
            await self._reopen(backoff)
            self._sink.on_discontinuity(0, GapReason.INTERRUPTED, Head(partition=0, epoch="0", offset=0))
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

    # -- messages

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
        if attributes := attributes_of(payload):
            value = {"dws": attributes, "data": value}
        return {**kind, "data": value, "dws": 1}

    def _record_of_bytes(self, payload: bytes) -> Record | None:
        try:
            wire = self._decode(payload)
        except msgspec.MsgspecError:
            logger.warning(
                "channel %r delivered %d bytes that are not a dws message; they are skipped",
                self._channel,
                len(payload),
            )
            self._sink.on_discontinuity(0, GapReason.UNREADABLE, Head(partition=0, epoch="0", offset=0))
            return None
        return Record(
            offset=None, topic=wire.topic, payload=wire.payload, ts_ms=0, publisher=wire.publisher, seq=wire.seq
        )

    def _record_of_message(self, message: Message) -> Record:
        data, attributes = message.data, None
        if _is_wrapped(data) and data["dws"] == 1:
            data = data["data"]  # a broker of the original library treats all members except its own as data
        if _is_wrapped(data) and isinstance(data["dws"], dict):
            attributes, data = data["dws"], data["data"]
        topic = message.topic or ALL
        if message.type == "send_by_conn_id" and isinstance(message.conn_id, str):
            topic = conn_topic(message.conn_id)
        payload = header_of("json", attributes) + JSONCodec().encode(data)
        return Record(offset=None, topic=topic, payload=payload, ts_ms=0, publisher=b"", seq=0)

    @staticmethod
    def _settle(future: asyncio.Future[Receipt], error: BrokerError) -> None:
        if not future.done():
            future.set_exception(error)


def _is_wrapped(data: Any) -> bool:
    return isinstance(data, dict) and "dws" in data and "data" in data
