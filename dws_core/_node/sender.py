"""What an application sends: to a topic, to everyone, to some."""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from dws_core._errors import ConfigurationError, InvalidTopic
from dws_core._log.records import Receipt
from dws_core._node.publisher import PendingPublish, Publisher
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.message import JSON, Message
from dws_core._wire.node_topics import ALL, check_conn_id, conn_topic


class Sender:
    """The sending half of `WebSocketManager`."""

    _publisher: Publisher
    _matcher: TopicMatcher

    def publish(self, topic: str, data: JSON, *, key: str | None = None) -> Awaitable[list[Receipt]]:
        """Publish data to a topic: every connection with a matching filter gets it, on every node.

        Works at once, in order; await it to know that the broker has it, and where.

        Args:
            topic: No wildcards (MQTT 5.0 §4.7).
            data: Any JSON value.
            key: A repeat of (topic, key) within 60 s is delivered once. 1 to 1,024 bytes of UTF-8.

        Raises:
            InvalidTopic: The topic breaks a rule, or belongs to the node (`$…`).
            InvalidMessage: The key cannot be used.
            CodecError: The node's codec cannot express the data.
            BrokerError: When awaited: see `BrokerUnavailable`, `PublishOutcomeUnknown`, `BrokerOverloaded`,
                `PayloadTooLarge`, `BrokerClosed`.
        """
        self._matcher.check_topic(topic)
        if topic.startswith("$"):
            raise InvalidTopic(topic, position=0, reason="it belongs to the node", fix="use broadcast() or send_to()")
        return PendingPublish([self._publisher.publish(topic, data, key=key)], topic)

    def broadcast(self, message: Message | JSON, *, key: str | None = None) -> Awaitable[list[Receipt]]:
        """Send data (of a `Message`, or plain) to every connection of the channel, on every node.

        Works at once; awaiting is optional, see `publish`.
        """
        data = message.data if isinstance(message, Message) else message
        return PendingPublish([self._publisher.publish(ALL, data, key=key)], ALL)

    def send_to(
        self, conn_id: str | Collection[str], data: JSON, *, key: str | None = None
    ) -> Awaitable[list[Receipt]]:
        """Send data to the connections with this id, or one of these ids, on whichever node they are.

        Works at once; awaiting is optional, see `publish`. An id that nobody has is no error.
        """
        ids = [conn_id] if isinstance(conn_id, str) else list(dict.fromkeys(conn_id))
        topics = [conn_topic(check_conn_id(one)) for one in ids]
        return PendingPublish(
            [self._publisher.publish(topic, data, key=key) for topic in topics], f"{len(ids)} connections"
        )

    def send(self, message: Message) -> Awaitable[list[Receipt]]:
        """Publish a message's data to its topic. Works at once; awaiting is optional, see `publish`."""
        if message.topic is None:
            raise ConfigurationError("a message to send() has no topic.", fix="set Message(topic=...)")
        return self.publish(message.topic, message.data, key=message.key)

    def send_by_conn_id(self, message: Message) -> Awaitable[list[Receipt]]:
        """Send a message's data to its `conn_id` or ids. Works at once; awaiting is optional, see `publish`."""
        if not message.conn_id:
            raise ConfigurationError("a message to send_by_conn_id() has no conn_id.", fix="set Message(conn_id=...)")
        return self.send_to(message.conn_id, message.data, key=message.key)

    def send_msg(self, message: Message) -> Awaitable[list[Receipt]]:
        """Send a message by its type: `broadcast`, `send_by_conn_id`, and `send` for any other."""
        if message.type == "broadcast":
            return self.broadcast(message, key=message.key)
        return self.send_by_conn_id(message) if message.type == "send_by_conn_id" else self.send(message)
