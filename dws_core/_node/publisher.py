"""From the application to the log: encode once, choose the partition, hand to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import Any

from dws_core._errors import InvalidTopic
from dws_core._log.contract import LogBroker
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import Layout, Receipt
from dws_core._node.stats import Counters
from dws_core._topics.filters import utf8_size
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import header_of
from dws_core._wire.keys import check_key
from dws_core._wire.message import JSON

logger = logging.getLogger("dws")


class PendingPublish:
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


class Completed:
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
        self._max_topic_bytes = broker.capabilities.max_topic_bytes

    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> asyncio.Future[Receipt]:
        """Publish without waiting; the future is the broker's answer.

        What no broker takes is refused here: in the broker it could harm its neighbours.

        Raises:
            InvalidTopic: The topic is too long for the broker, or not expressible in UTF-8.
            InvalidMessage: The key is too long or empty, or not expressible in UTF-8.
            CodecError: The node's codec cannot express the data.
        """
        self._check_topic(topic)
        if key is not None:
            check_key(key)
        payload = self._header + self._codec.encode(data)
        self._counters.published += 1
        partition, history = partition_of(topic, self._layout), self._policy.of(topic)
        return self._broker.publish(partition, topic, payload, history=history, key=key)

    def _check_topic(self, topic: str) -> None:
        if (size := utf8_size(topic, InvalidTopic)) > (limit := self._max_topic_bytes):
            reason = f"it has {size:,} bytes, the broker's limit is {limit:,}"
            raise InvalidTopic(topic, position=limit, reason=reason, fix="shorten it")

    def position(self, topic: str, receipt: Receipt) -> str | None:
        """Return where a message stands, as clients see it; None for a topic without history."""
        if receipt.offset is None:
            return None
        return format_position(partition_of(topic, self._layout), receipt.epoch, receipt.offset)
