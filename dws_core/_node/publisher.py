"""From the application to the log: encode once, choose the partition, hand to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import Any

from dws_core._log.interface import Layout, LogBroker, Receipt
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._node.counters import Counters
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import header_of
from dws_core._wire.message import JSON

logger = logging.getLogger("dws")


class Sending:
    """A publish on its way. Await it for the receipts, or let it go: a failure that nobody awaits is logged."""

    __slots__ = ("_awaited", "_futures", "_topic")

    def __init__(self, futures: list[asyncio.Future[Receipt]], topic: str) -> None:
        self._futures = futures
        self._topic = topic
        self._awaited = False
        for future in futures:
            future.add_done_callback(self._on_done)

    def __await__(self) -> Generator[Any, None, list[Receipt]]:
        self._awaited = True
        receipts: list[Receipt] = []
        for future in self._futures:
            receipt = yield from asyncio.shield(future).__await__()
            receipts += [receipt]
        return receipts

    def _on_done(self, future: asyncio.Future[Receipt]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None and not self._awaited:
            logger.error("publish to %r failed: %s", self._topic, error)


class Done:
    """Something that is done already and may be awaited all the same."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield  # makes this a generator


class Publisher:
    """Encodes data once and publishes it to the topic's partition."""

    def __init__(
        self, broker: LogBroker, codec: Codec, layout: Layout, policy: HistoryPolicy, counters: Counters
    ) -> None:
        self._broker = broker
        self._codec = codec
        self._header = header_of(codec.name)
        self._layout = layout
        self._policy = policy
        self._counters = counters

    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> asyncio.Future[Receipt]:
        """Publish without waiting; the future is the broker's answer.

        Raises:
            CodecError: The node's codec cannot express the data.
        """
        payload = self._header + self._codec.encode(data)
        self._counters.published += 1
        partition, history = partition_of(topic, self._layout), self._policy.of(topic)
        return self._broker.publish(partition, topic, payload, history=history, key=key)

    def position(self, topic: str, receipt: Receipt) -> str | None:
        """Return where a message stands, as clients see it; None for a topic without history."""
        if receipt.offset is None:
            return None
        return format_position(partition_of(topic, self._layout), receipt.epoch, receipt.offset)
