"""Publishing: encode once, choose the partition, pass the message to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from dws_core._errors import CodecError, InvalidTopic
from dws_core._log.contract import LogBroker
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import History, Layout, Receipt
from dws_core._node.not_started import not_started
from dws_core._node.pending_publish import AnyFuture, call_in_loop, running_loop
from dws_core._node.stats import Counters
from dws_core._topics.filters import utf8_size
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import EXCLUDE, header_of
from dws_core._wire.keys import check_key
from dws_core._wire.message import JSON


class Completed:
    """The result of a call that has finished. Awaiting it is allowed and returns at once."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield  # makes this a generator


_NOTHING: Final[Mapping[str, str]] = {}


class Publisher:
    """Encodes data once and publishes it to the topic's partition.

    Data that one of the node's codecs cannot express is refused, because the clients that use it would miss the message.
    """

    def __init__(
        self,
        broker: LogBroker,
        codec: Codec,
        *,
        codecs: Iterable[Codec],
        layout: Layout,
        policy: HistoryPolicy,
        counters: Counters,
    ) -> None:
        self._broker = broker
        self._codec = codec
        self._other_codecs = tuple(other for other in codecs if other is not codec)
        self._header = header_of(codec.name)
        self._layout = layout
        self._policy = policy
        self._counters = counters
        self._max_topic_bytes = broker.capabilities.max_topic_bytes
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the node while it is started, or None."""
        return self._loop

    def start(self) -> None:
        """Accept messages from other threads and event loops. They are published in the running event loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Accept no more messages from other threads."""
        self._loop = None

    def publish_to_each(
        self,
        topics: Sequence[str],
        data: JSON,
        *,
        key: str | None = None,
        attributes: Mapping[str, str] = _NOTHING,
        order: Hashable | None = None,
    ) -> list[asyncio.Future[Receipt]]:
        """Publish the same data to several topics, without waiting. The futures hold the broker's answers.

        The data is encoded once. A topic or key that no broker accepts is refused here, before it can harm other publishes
        of the same batch.

        Args:
            topics: Valid topics.
            data: Any JSON value.
            key: Idempotency key. If None, a repeat is a new message.
            attributes: Attributes of the envelope, such as `EXCLUDE` and `SENDER`.
            order: Publishes with the same value keep their order through failures. See `LogBroker.publish`.

        Raises:
            InvalidTopic: A topic is too long for the broker, or cannot be encoded in UTF-8.
            InvalidMessage: The key is too long or empty, or cannot be encoded in UTF-8.
            CodecError: One of the node's codecs cannot encode the data.
        """
        return self._store_each(topics, self._check_and_encode(topics, data, key, attributes), key, order)

    def partitions_of(self, topics: Iterable[str]) -> list[int]:
        """Return the partition of each topic."""
        return [partition_of(topic, self._layout) for topic in topics]

    def publish_from_anywhere(
        self, topics: Sequence[str], data: JSON, *, key: str | None = None, exclude: str | None = None
    ) -> list[AnyFuture]:
        """Publish like `publish_to_each`, also from another thread or event loop.

        Raises:
            BrokerClosed: The node is stopped, and the calling thread runs no event loop.
        """
        attributes = _NOTHING if exclude is None else {EXCLUDE: exclude}
        payload, here = self._check_and_encode(topics, data, key, attributes), running_loop()
        if self._loop is not None and self._loop is not here:
            return [*call_in_loop(self._loop, len(topics), partial(self._store_each, topics, payload, key))]
        if here is None:
            raise not_started()
        if self._loop is None:
            return [_refused(here) for _ in topics]
        return [*self._store_each(topics, payload, key)]

    def publish_unstored(self, topic: str, data: JSON, attributes: Mapping[str, str]) -> asyncio.Future[Receipt]:
        """Publish a message with attributes for other nodes, without history. Errors: see `publish_to_each`."""
        self._check_topic(topic)
        payload = self._encode(data, header_of(self._codec.name, attributes))
        self._counters.published += 1
        partition = partition_of(topic, self._layout)
        return self._broker.publish(partition, topic, payload, history=History.none())

    def _check_and_encode(
        self, topics: Sequence[str], data: JSON, key: str | None, attributes: Mapping[str, str]
    ) -> bytes:
        for topic in topics:
            self._check_topic(topic)
        if key is not None:
            check_key(key)
        return self._encode(data, header_of(self._codec.name, attributes) if attributes else self._header)

    def _encode(self, data: JSON, header: bytes) -> bytes:
        payload = header + self._codec.encode(data)
        for other in self._other_codecs:
            try:
                other.encode([[[data]]])  # as deep as in a message or a history
            except CodecError:
                other.encode(data)  # its error has the path without these lists
                raise
        return payload

    def _store_each(
        self, topics: Sequence[str], payload: bytes, key: str | None, order: Hashable | None = None
    ) -> list[asyncio.Future[Receipt]]:
        self._counters.published += len(topics)
        if len(topics) == 1:
            return [self._store(topics[0], payload, key, order)]
        return [self._store(topic, payload, key, order) for topic in topics]

    def _store(self, topic: str, payload: bytes, key: str | None, order: Hashable | None) -> asyncio.Future[Receipt]:
        partition, history = partition_of(topic, self._layout), self._policy.of(topic)
        return self._broker.publish(partition, topic, payload, history=history, key=key, order=order)

    def _check_topic(self, topic: str) -> None:
        if (size := utf8_size(topic, InvalidTopic)) > (limit := self._max_topic_bytes):
            reason = f"it has {size:,} bytes, the broker's limit is {limit:,}"
            raise InvalidTopic(topic, position=limit, reason=reason, fix="shorten it")

    def position(self, topic: str, receipt: Receipt) -> str | None:
        """Return the position of a message in the form that clients receive, or None for a topic without history."""
        if receipt.offset is None:
            return None
        return format_position(partition_of(topic, self._layout), receipt.epoch, receipt.offset)

    def locate(self, topics: Sequence[str]) -> Callable[[Sequence[Receipt]], list[Receipt]]:
        """Return a function that adds the positions to the receipts of these topics."""

        def add(receipts: Sequence[Receipt]) -> list[Receipt]:
            pairs = zip(topics, receipts, strict=True)
            return [msgspec.structs.replace(receipt, pos=self.position(topic, receipt)) for topic, receipt in pairs]

        return add


def _refused(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Receipt]:
    """Return the future of a publish on a node that is not started."""
    future: asyncio.Future[Receipt] = loop.create_future()
    future.set_exception(not_started())
    return future
