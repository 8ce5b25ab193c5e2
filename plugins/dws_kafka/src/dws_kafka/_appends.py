"""The appends of one partition: in the order of the calls, one batch in flight, and none after a failure."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from dws_core.plugin import WireError, WireLost, WireRefused
from dws_kafka._clients import FORBIDDEN, Clients


@dataclass(slots=True, eq=False)
class _Entry:
    """One append.

    Attributes:
        data: What to store.
        offset: Where it is stored, None before that.
        error: Why it failed, None before that.
        is_sent: Whether aiokafka has it. Then it may be stored even after this process closed its connection.
    """

    data: bytes
    offset: int | None = None
    error: WireError | None = None
    is_sent: bool = False


class Appends:
    """The appends of one partition.

    Args:
        clients: The clients of the wire, which are lost with the first failure.
        producer: The producer.
        topic: Name of the topic.
        partition: Number of the partition.
    """

    def __init__(self, clients: Clients, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._clients = clients
        self._producer = producer
        self._place: Any = (topic, partition)
        self._waiting: deque[_Entry] = deque()
        self._turn = asyncio.Lock()

    async def append(self, data: bytes, timeout_s: float) -> int:
        """Append, together with all calls that wait for the batch in flight. Return the offset.

        Raises:
            WireLost: The append failed. No later append is stored.
            WireRefused: The broker refused this append alone.
        """
        self._waiting.append(entry := _Entry(data))
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                if entry.offset is None and entry.error is None:
                    await self._send()
        except TimeoutError:
            self._clients.lose("an append got no reply")
            raise WireLost("an append got no reply", sent=entry.is_sent) from None
        if entry.offset is None:
            raise entry.error or WireLost("an append was cancelled")
        return entry.offset

    async def _send(self) -> None:
        self._clients.check()
        batch, entries = self._producer.create_batch(), list[_Entry]()
        while self._waiting and batch.append(timestamp=None, key=None, value=self._waiting[0].data) is not None:
            entries.append(self._waiting.popleft())
            entries[-1].is_sent = True
        batch.close()
        try:
            first = await self._stored(batch)
        except KafkaError as error:
            self._fail(entries, error)
        except BaseException:
            self._clients.lose("an append was cancelled")
            raise
        else:
            for offset, entry in enumerate(entries, first):
                entry.offset = offset

    async def _stored(self, batch: Any) -> int:
        topic, partition = self._place
        sending = await self._producer.send_batch(batch, topic, partition=partition)
        sending.add_done_callback(lambda found: found.cancelled() or found.exception())  # also if nobody waits for it
        await asyncio.wait({sending, self._clients.lost}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            raise KafkaError(self._clients.lost.result())
        return int(sending.result().offset)

    def _fail(self, entries: list[_Entry], error: KafkaError) -> None:
        """Decide what the failure of a batch means for its appends.

        If no connection broke, aiokafka sent the batch only once and the refusal is certain.
        """
        refused = (
            isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError) and not self._clients.lost.done()
        )
        forbidden = isinstance(error, FORBIDDEN) and not self._clients.lost.done()
        if refused and len(entries) == 1:
            entries[0].error = WireRefused(str(error))
            return
        cause = (
            f"this user may not write to topic {self._place[0]}" if forbidden else str(error) or type(error).__name__
        )
        self._clients.lose(cause)
        for entry in entries:
            entry.error = WireLost(cause, sent=not (refused or forbidden))
