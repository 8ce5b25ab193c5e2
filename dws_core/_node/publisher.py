"""Publishing: encode once, choose the partition, pass the message to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Generator, Iterable, Sequence
from threading import get_ident
from typing import Any

from dws_core._errors import ConfigurationError, InvalidTopic, PublishOutcomeUnknown
from dws_core._log.contract import LogBroker
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import Layout, Receipt
from dws_core._node.stats import Counters
from dws_core._topics.filters import is_reserved, utf8_size
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import header_of
from dws_core._wire.keys import check_key
from dws_core._wire.message import JSON, Message
from dws_core._wire.node_topics import ALL, check_conn_id, conn_topic

logger = logging.getLogger("dws")


class PendingPublish:
    """A publish in progress. Await it for the receipts, or drop it: a failure that nobody awaits is logged."""

    __slots__ = ("_awaited", "_futures", "_topic")

    def __init__(self, futures: list[asyncio.Future[Receipt]], topic: str) -> None:
        self._futures = futures
        self._topic = topic
        self._awaited = False
        for future in futures:
            future.add_done_callback(self._on_done)

    def __await__(self) -> Generator[Any, None, list[Receipt]]:
        self._awaited = True
        if len(self._futures) == 1:
            return [(yield from asyncio.shield(self._futures[0]).__await__())]
        if self._futures:
            yield from asyncio.wait(self._futures).__await__()  # does not cancel them
        if (failure := failure_of(self._futures, self._topic)) is not None:
            raise failure
        return [future.result() for future in self._futures]

    def _on_done(self, future: asyncio.Future[Receipt]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None and not self._awaited:
            logger.error("publish to %r failed: %s", self._topic, error)


def failure_of(futures: Sequence[asyncio.Future[Receipt]], topic: str) -> BaseException | None:
    """Return why a publish to several topics has failed, or None if it has not. All futures are done.

    If some of them may be stored, the outcome is unknown, and nobody can repeat the publish safely without a key.
    """
    failures = [_failure(future, topic) for future in futures]
    certain = [
        failure for failure in failures if failure is not None and not isinstance(failure, PublishOutcomeUnknown)
    ]
    if len(certain) == len(failures):
        return certain[0] if certain else None
    if all(failure is None for failure in failures):
        return None
    unknown = PublishOutcomeUnknown(topic)
    unknown.__cause__ = next(failure for failure in failures if failure is not None)
    return unknown


def _failure(future: asyncio.Future[Receipt], topic: str) -> BaseException | None:
    return PublishOutcomeUnknown(topic) if future.cancelled() else future.exception()


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
        self.thread: int | None = None
        self._max_topic_bytes = broker.capabilities.max_topic_bytes

    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> asyncio.Future[Receipt]:
        """Publish without waiting. The future holds the broker's answer.

        A topic or key that no broker accepts is refused here, before it can harm other publishes of the same batch.

        Raises:
            InvalidTopic: The topic is too long for the broker, or cannot be encoded in UTF-8.
            InvalidMessage: The key is too long or empty, or cannot be encoded in UTF-8.
            CodecError: One of the node's codecs cannot encode the data.
            ConfigurationError: The caller runs in another thread.
        """
        self._check_topic(topic)
        payload = self._encode(data, key)
        self._counters.published += 1
        return self._store(topic, payload, key)

    def publish_to_each(
        self, topics: Sequence[str], data: JSON, *, key: str | None = None
    ) -> list[asyncio.Future[Receipt]]:
        """Publish the same data to several topics. It is encoded once. Errors: see `publish`."""
        for topic in topics:
            self._check_topic(topic)
        payload = self._encode(data, key)
        self._counters.published += len(topics)
        return [self._store(topic, payload, key) for topic in topics]

    def _encode(self, data: JSON, key: str | None) -> bytes:
        """Check the thread and the key, and return the payload."""
        if self.thread is not None and self.thread != get_ident():
            raise ConfigurationError(
                "publish was called in a thread or event loop other than that of the node.",
                fix="use asyncio.run_coroutine_threadsafe(...) with the node's loop, or an async def route",
            )
        if key is not None:
            check_key(key)
        payload = self._header + self._codec.encode(data)
        for other in self._other_codecs:
            other.encode([[[data]]])  # as deep as in a message or a history
        return payload

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


class PublishMethods:
    """The publishing methods of `WebSocketManager`: to a topic, to every connection, to some connections."""

    _publisher: Publisher
    _matcher: TopicMatcher

    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> Awaitable[list[Receipt]]:
        """Publish data to a topic. Every connection with a matching filter receives it, on every node.

        Publishes immediately and in order. Await the result to wait until the broker has stored the message.

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
        return PendingPublish([self._publisher.publish(topic, data, key=key)], topic)

    def broadcast(self, message: Message | JSON, *, key: str | None = None) -> Awaitable[list[Receipt]]:
        """Send data to every connection of the channel, on every node.

        Publishes immediately. Awaiting is optional, see `publish`.

        Args:
            message: A `Message`, whose data is sent, or the data itself.
            key: Idempotency key, see `publish`.
        """
        data = message.data if isinstance(message, Message) else message
        return PendingPublish([self._publisher.publish(ALL, data, key=key)], ALL)

    def send_to(
        self, conn_id: str | Collection[str], data: JSON, *, key: str | None = None
    ) -> Awaitable[list[Receipt]]:
        """Send data to the connections with one of these ids, on whichever node they are.

        Publishes immediately. Awaiting is optional, see `publish`. An id without a connection is no error.

        Args:
            conn_id: One connection id, or several.
            data: Any JSON value.
            key: Idempotency key, see `publish`.
        """
        ids = [conn_id] if isinstance(conn_id, str) else list(dict.fromkeys(conn_id))
        topics = [conn_topic(check_conn_id(one)) for one in ids]
        futures = self._publisher.publish_to_each(topics, data, key=key)
        return PendingPublish(futures, f"{len(ids)} connections")

    def send(self, message: Message) -> Awaitable[list[Receipt]]:
        """Publish a message's data to its topic. Publishes immediately. Awaiting is optional, see `publish`."""
        if message.topic is None:
            raise ConfigurationError("a message to send() has no topic.", fix="set Message(topic=...)")
        return self.publish(message.topic, message.data, key=message.key)

    def send_by_conn_id(self, message: Message) -> Awaitable[list[Receipt]]:
        """Send a message's data to its `conn_id` or ids. Awaiting is optional, see `publish`."""
        if not message.conn_id:
            raise ConfigurationError("a message to send_by_conn_id() has no conn_id.", fix="set Message(conn_id=...)")
        return self.send_to(message.conn_id, message.data, key=message.key)

    def send_msg(self, message: Message) -> Awaitable[list[Receipt]]:
        """Send a message by its type: `broadcast`, `send_by_conn_id`, or `send` for any other type."""
        if message.type == "broadcast":
            return self.broadcast(message, key=message.key)
        return self.send_by_conn_id(message) if message.type == "send_by_conn_id" else self.send(message)
