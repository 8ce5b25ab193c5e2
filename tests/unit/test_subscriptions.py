"""Subscribing by message, on a connection without a manager."""

from __future__ import annotations

import pytest

from dws_core import InvalidFilter, InvalidSubscription, InvalidSubscriptionMessage
from dws_core._node.connection.connection import Connection
from dws_core._subscriptions import handle_subscription_message, subscribe, unsubscribe
from dws_core._wire.message import Message
from dws_core.testing import FakeWebSocket


@pytest.fixture
async def connection() -> Connection:
    return Connection(FakeWebSocket(), "ann")


def _message(typ: str, topic: str | None) -> Message:
    return Message(data={}, typ=typ, topic=topic)


async def test_message_topic_is_added_and_removed(connection: Connection) -> None:
    subscribe(connection, _message("subscribe", "a/+"))
    subscribe(connection, _message("subscribe", "b/#"))
    assert connection.topics == {"a/+", "b/#"}
    unsubscribe(connection, _message("unsubscribe", "a/+"))
    unsubscribe(connection, _message("unsubscribe", "never/there"))
    assert connection.topics == {"b/#"}


async def test_message_type_determines_action(connection: Connection) -> None:
    handle_subscription_message(connection, _message("subscribe", "a"))
    assert connection.topics == {"a"}
    handle_subscription_message(connection, _message("unsubscribe", "a"))
    assert connection.topics == set()


@pytest.mark.parametrize(
    ("call", "typ", "topic"),
    [
        (subscribe, "unsubscribe", "a"),
        (subscribe, "subscribe", None),
        (subscribe, "subscribe", ""),
        (unsubscribe, "subscribe", "a"),
        (unsubscribe, "unsubscribe", None),
        (handle_subscription_message, "send", "a"),
        (handle_subscription_message, "unsubscribe", None),
    ],
)
async def test_wrong_message_type_is_rejected(
    connection: Connection, call: object, typ: str, topic: str | None
) -> None:
    with pytest.raises(InvalidSubscriptionMessage, match=f"type '{typ}' with topic {topic!r}") as caught:
        call(connection, _message(typ, topic))  # type: ignore[operator]  # one of three functions
    assert caught.value.connection is connection
    assert connection.topics == set()


async def test_invalid_filter_is_rejected_with_reason(connection: Connection) -> None:
    with pytest.raises(InvalidSubscription, match="a/#/b") as caught:
        subscribe(connection, _message("subscribe", "a/#/b"))
    assert caught.value.connection is connection
    assert isinstance(caught.value.__cause__, InvalidFilter)
    assert caught.value.fix == caught.value.__cause__.fix
