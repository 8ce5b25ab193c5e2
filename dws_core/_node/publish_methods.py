"""The publishing methods of a manager."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from dws_core._errors import ConfigurationError, InvalidTopic
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.senders import name_of_id
from dws_core._node.pending_publish import PendingPublish, acts_as_coroutine
from dws_core._node.publisher import Publisher
from dws_core._node.runtime import NodeRuntime
from dws_core._topics.filters import is_reserved
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.message import JSON, Message
from dws_core._wire.node_topics import ALL, check_conn_id, conn_topic


class PublishMethods:
    """The publishing methods of `WebSocketManager`: to a topic, to every connection, to some connections.

    They may be called in coroutines, in plain functions of the event loop, in threads and in other event loops.
    """

    _publisher: Publisher
    _matcher: TopicMatcher
    _runtime: NodeRuntime

    @acts_as_coroutine
    def publish(
        self, topic: str, data: JSON, *, key: str | None = None, exclude: Connection | str | None = None
    ) -> PendingPublish:
        """Publish data to a topic. Every connection with a matching filter receives it, on every node.

        Publishes immediately and in order. Await the result to wait until the broker has stored the message, and to let the
        node deliver it: a burst then waits for connections of this node that are over `Limits.outbox_bytes`, as long as
        they read. In a thread, for example in a `def` route of FastAPI, the event loop of the node publishes the message,
        and `result()` waits.

        Args:
            topic: A topic without wildcards (MQTT 5.0 §4.7).
            data: Any JSON value.
            key: Idempotency key of 1 to 1,024 bytes of UTF-8. A repeat of (topic, key) within 60 s is delivered once.
            exclude: A connection that does not receive the message, for example its sender. If its client has sent a
                `client_id`, no other connection of that client receives it either, on any node, also in a replay. A
                string excludes all connections with this connection id. If None, everybody receives the message.

        Raises:
            InvalidTopic: The topic breaks a rule, or is reserved for the node (`$…`).
            InvalidMessage: The key or the excluded connection id is invalid.
            CodecError: One of the node's codecs cannot encode the data.
            BrokerError: Raised when awaited: `BrokerUnavailable`, `PublishOutcomeUnknown`, `BrokerOverloaded`,
                `PayloadTooLarge`, `BrokerClosed`.
        """
        self._matcher.check_topic(topic)
        if is_reserved(topic):
            reason = "topics that begin with '$' are reserved for the node"
            raise InvalidTopic(topic, position=0, reason=reason, fix="use broadcast() or send_to()")
        return self._publish((topic,), topic, data, key=key, exclude=exclude)

    @acts_as_coroutine
    def broadcast(
        self, message: Message | JSON, *, key: str | None = None, exclude: Connection | str | None = None
    ) -> PendingPublish:
        """Send data to every connection of the channel, on every node.

        Publishes immediately. Awaiting is optional, see `publish`.

        Args:
            message: A `Message`, whose data is sent, or the data itself.
            key: Idempotency key, see `publish`.
            exclude: A connection or a connection id that does not receive the message, see `publish`.
        """
        data = message.data if isinstance(message, Message) else message
        return self._publish((ALL,), ALL, data, key=key, exclude=exclude)

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
        return self._publish(topics, f"{len(ids)} connections", data, key=key)

    @acts_as_coroutine
    def send(self, message: Message) -> PendingPublish:
        """Publish a message's data to its topic. Publishes immediately. Awaiting is optional, see `publish`.

        A message does not know its sender, so its `echo` has no effect here. Use `publish(..., exclude=connection)`.
        """
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

    def _publish(
        self,
        topics: Sequence[str],
        subject: str,
        data: JSON,
        *,
        key: str | None,
        exclude: Connection | str | None = None,
    ) -> PendingPublish:
        name: str | None = None
        if isinstance(exclude, str):
            name = name_of_id(check_conn_id(exclude))
        elif exclude is not None:
            name = self._runtime.senders.name(exclude)
        futures = self._publisher.publish_from_anywhere(topics, data, key=key, exclude=name)
        complete, delivered = self._publisher.locate(topics), partial(self._runtime.delivered, topics)
        return PendingPublish(futures, subject, complete, delivered=delivered, slow_loop=self._runtime.slow_loop)
