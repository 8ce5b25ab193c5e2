"""Publishing: encode once, choose the partition, pass the message to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator, Iterable, Sequence
from functools import partial
from typing import Any

from dws_core._errors import CodecError, ConfigurationError, InvalidTopic
from dws_core._log.contract import LogBroker
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import Layout, Receipt
from dws_core._node.not_started import not_started
from dws_core._node.pending_publish import (
    AnyFuture,
    PendingPublish,
    acts_as_coroutine,
    call_in_loop,
    running_loop,
)
from dws_core._node.stats import Counters
from dws_core._topics.filters import is_reserved, utf8_size
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import header_of
from dws_core._wire.keys import check_key
from dws_core._wire.message import JSON, Message
from dws_core._wire.node_topics import ALL, check_conn_id, conn_topic


class Completed:
    """The result of a call that has finished. Awaiting it is allowed and returns at once."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield  # makes this a generator


class Publisher:
    """Encodes data once and publishes it to the topic's partition.

    Data that one of the node's codecs cannot express is refused, because the clients that use it would miss the message.

    Attributes:
        thread: Thread of the node's event loop while the node is started.
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

    def start(self) -> None:
        """Accept messages from other threads and event loops. They are published in the running event loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Accept no more messages from other threads."""
        self._loop = None

    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> asyncio.Future[Receipt]:
        """Publish without waiting. The future holds the broker's answer.

        A topic or key that no broker accepts is refused here, before it can harm other publishes of the same batch.

        Raises:
            InvalidTopic: The topic is too long for the broker, or cannot be encoded in UTF-8.
            InvalidMessage: The key is too long or empty, or cannot be encoded in UTF-8.
            CodecError: One of the node's codecs cannot encode the data.
        """
        self._check_topic(topic)
        payload = self._encode(data, key)
        self._counters.published += 1
        return self._store(topic, payload, key)

    def publish_to_each(
        self, topics: Sequence[str], data: JSON, *, key: str | None = None, sender: str | None = None
    ) -> list[asyncio.Future[Receipt]]:
        """Publish the same data to several topics, stamped with its sender. It is encoded once. Errors: see `publish`."""
        return self._store_each(topics, self._check_and_encode(topics, data, key, sender), key)

    def publish_from_anywhere(self, topics: Sequence[str], data: JSON, *, key: str | None = None) -> list[AnyFuture]:
        """Publish like `publish_to_each`, also from another thread or event loop.

        Raises:
            BrokerClosed: The node is stopped, and the calling thread runs no event loop.
        """
        payload, here = self._check_and_encode(topics, data, key), running_loop()
        if self._loop is not None and self._loop is not here:
            return [*call_in_loop(self._loop, len(topics), partial(self._store_each, topics, payload, key))]
        if here is None:
            raise not_started()
        if self._loop is None:
            return [_refused(here) for _ in topics]
        return [*self._store_each(topics, payload, key)]

    def _check_and_encode(self, topics: Sequence[str], data: JSON, key: str | None, sender: str | None = None) -> bytes:
        for topic in topics:
            self._check_topic(topic)
        return self._encode(data, key, sender)

    def _encode(self, data: JSON, key: str | None, sender: str | None = None) -> bytes:
        if key is not None:
            check_key(key)
        header = self._header if sender is None else header_of(self._codec.name, sender)
        payload = header + self._codec.encode(data)
        for other in self._other_codecs:
            try:
                other.encode([[[data]]])  # as deep as in a message or a history
            except CodecError:
                other.encode(data)  # its error has the path without these lists
                raise
        return payload

    def _store_each(self, topics: Sequence[str], payload: bytes, key: str | None) -> list[asyncio.Future[Receipt]]:
        self._counters.published += len(topics)
        return [self._store(topic, payload, key) for topic in topics]

    def _store(self, topic: str, payload: bytes, key: str | None) -> asyncio.Future[Receipt]:
        partition, history = partition_of(topic, self._layout), self._policy.of(topic)
        return self._broker.publish(partition, topic, payload, history=history, key=key)

    def _check_topic(self, topic: str) -> None:
        if (size := utf8_size(topic, InvalidTopic)) > (limit := self._max_topic_bytes):
            reason = f"it has {size:,} bytes, the broker's limit is {limit:,}"
            raise InvalidTopic(topic, position=limit, reason=reason, fix="shorten it")

    def position(self, topic: str, receipt: Receipt) -> str | None:
        """Return the position of a message in the form that clients receive, or None for a topic without history."""
        if receipt.offset is None:
            return None
        return format_position(partition_of(topic, self._layout), receipt.epoch, receipt.offset)


def _refused(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Receipt]:
    """Return the future of a publish on a node that is not started."""
    future: asyncio.Future[Receipt] = loop.create_future()
    future.set_exception(not_started())
    return future


class PublishMethods:
    """The publishing methods of `WebSocketManager`: to a topic, to every connection, to some connections.

    They may be called in coroutines, in plain functions of the event loop, in threads and in other event loops.
    """

    _publisher: Publisher
    _matcher: TopicMatcher

    @acts_as_coroutine
    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> PendingPublish:
        """Publish data to a topic. Every connection with a matching filter receives it, on every node.

        Publishes immediately and in order. Await the result to wait until the broker has stored the message. In a thread,
        for example in a `def` route of FastAPI, the event loop of the node publishes it, and `result()` waits.

        Args:
            topic: A topic without wildcards (MQTT 5.0 §4.7).
            data: Any JSON value.
            key: Idempotency key of 1 to 1,024 bytes of UTF-8. A repeat of (topic, key) within 60 s is delivered once.

        Raises:
            InvalidTopic: The topic breaks a rule, or is reserved for the node (`$…`).
            InvalidMessage: The key is invalid.
            CodecError: One of the node's codecs cannot encode the data.
            BrokerError: Raised when awaited: `BrokerUnavailable`, `PublishOutcomeUnknown`, `BrokerOverloaded`,
                `PayloadTooLarge`, `BrokerClosed`.
        """
        self._matcher.check_topic(topic)
        if is_reserved(topic):
            reason = "topics that begin with '$' are reserved for the node"
            raise InvalidTopic(topic, position=0, reason=reason, fix="use broadcast() or send_to()")
        return PendingPublish(self._publisher.publish_from_anywhere((topic,), data, key=key), topic)

    @acts_as_coroutine
    def broadcast(self, message: Message | JSON, *, key: str | None = None) -> PendingPublish:
        """Send data to every connection of the channel, on every node.

        Publishes immediately. Awaiting is optional, see `publish`.

        Args:
            message: A `Message`, whose data is sent, or the data itself.
            key: Idempotency key, see `publish`.
        """
        data = message.data if isinstance(message, Message) else message
        return PendingPublish(self._publisher.publish_from_anywhere((ALL,), data, key=key), ALL)

    @acts_as_coroutine
    def send_to(self, conn_id: str | Collection[str], data: JSON, *, key: str | None = None) -> PendingPublish:
        """Send data to the connections with one of these ids, on whichever node they are.

        Publishes immediately. Awaiting is optional, see `publish`. An id without a connection is no error.

        Args:
            conn_id: One connection id, or several.
            data: Any JSON value.
            key: Idempotency key, see `publish`.
        """
        ids = [conn_id] if isinstance(conn_id, str) else list(dict.fromkeys(conn_id))
        topics = [conn_topic(check_conn_id(one)) for one in ids]
        futures = self._publisher.publish_from_anywhere(topics, data, key=key)
        return PendingPublish(futures, f"{len(ids)} connections")

    @acts_as_coroutine
    def send(self, message: Message) -> PendingPublish:
        """Publish a message's data to its topic. Publishes immediately. Awaiting is optional, see `publish`."""
        if message.topic is None:
            raise ConfigurationError("a message to send() has no topic.", fix="set Message(topic=...)")
        return self.publish(message.topic, message.data, key=message.key)

    @acts_as_coroutine
    def send_by_conn_id(self, message: Message) -> PendingPublish:
        """Send a message's data to its `conn_id` or ids. Awaiting is optional, see `publish`."""
        if not message.conn_id:
            raise ConfigurationError("a message to send_by_conn_id() has no conn_id.", fix="set Message(conn_id=...)")
        return self.send_to(message.conn_id, message.data, key=message.key)

    @acts_as_coroutine
    def send_msg(self, message: Message) -> PendingPublish:
        """Send a message by its type: `broadcast`, `send_by_conn_id`, or `send` for any other type."""
        if message.type == "broadcast":
            return self.broadcast(message, key=message.key)
        return self.send_by_conn_id(message) if message.type == "send_by_conn_id" else self.send(message)
