"""Subscribing by message, as in the original library."""

from __future__ import annotations

from dws_core._errors import InvalidFilter, InvalidSubscription, InvalidSubscriptionMessage
from dws_core._node.connection.connection import Connection
from dws_core._wire.message import Message


def subscribe(connection: Connection, message: Message) -> None:
    """Subscribe a connection to `message.topic`, which is a filter.

    Raises:
        InvalidSubscriptionMessage: The message is not of type `subscribe`, or has no topic.
        InvalidSubscription: The topic is not a valid filter (MQTT 5.0 §4.7).
    """
    filter_ = _filter_of(connection, message, "subscribe")
    try:
        connection.topics.add(filter_)
    except InvalidFilter as error:
        raise InvalidSubscription(error.message, connection=connection, fix=error.fix) from error


def unsubscribe(connection: Connection, message: Message) -> None:
    """Remove the filter `message.topic` from a connection. A filter that it does not have is no error.

    Raises:
        InvalidSubscriptionMessage: The message is not of type `unsubscribe`, or has no topic.
    """
    connection.topics.discard(_filter_of(connection, message, "unsubscribe"))


def handle_subscription_message(connection: Connection, message: Message) -> None:
    """Call `subscribe` or `unsubscribe`, according to the type of the message.

    Raises:
        InvalidSubscriptionMessage: The message has another type, or no topic.
        InvalidSubscription: The topic is not a valid filter.
    """
    if message.type == "unsubscribe":
        unsubscribe(connection, message)
    else:
        subscribe(connection, message)


def _filter_of(connection: Connection, message: Message, expected: str) -> str:
    if message.type != expected or not message.topic:
        raise InvalidSubscriptionMessage(
            f"a message of type {message.type!r} with topic {message.topic!r} is not a {expected} message.",
            connection=connection,
            fix=f"send a message with type {expected!r} and a filter as topic",
        )
    return message.topic
