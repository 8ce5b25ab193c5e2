"""Brokers of the original library, adapted as a log: they publish dicts and return messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from unit._node.broker.plain_node import Node

from dws_core import Message
from dws_core._node.broker import plain_broker
from dws_core._wire.codecs import JSONCodec, MsgpackCodec
from dws_core._wire.envelope import header_of
from dws_core._wire.node_topics import ALL, conn_topic
from dws_core.plugin import BrokerInterface


class OriginalBroker(BrokerInterface):
    """Publishes dicts and returns messages. Sometimes `get_message` returns None."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.messages: list[Message | None] = []
        self.closed = asyncio.Event()

    async def connect(self) -> None: ...

    async def disconnect(self) -> None:
        self.closed.set()

    async def subscribe(self, channel: str) -> None: ...

    async def unsubscribe(self, channel: str) -> None: ...

    async def publish(self, channel: str, message: Any) -> None:
        self.published.append(message)

    async def get_message(self, **kwargs: Any) -> Message | None:
        if self.messages:
            return self.messages.pop(0)
        await self.closed.wait()
        raise ConnectionAbortedError("closed")


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_broker, "_IDLE_S", 0.0)


JSON_ONE = header_of("json") + b"1"


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        ("t", JSON_ONE, {"type": "send", "topic": "t", "conn_id": None, "data": 1, "dws": 1}),
        (ALL, JSON_ONE, {"type": "broadcast", "topic": None, "conn_id": None, "data": 1, "dws": 1}),
        (
            conn_topic("a/b"),
            JSON_ONE,
            {"type": "send_by_conn_id", "topic": None, "conn_id": "a/b", "data": 1, "dws": 1},
        ),
        (
            "t",
            header_of("msgpack") + MsgpackCodec().encode(1),
            {
                "type": "send",
                "topic": "t",
                "conn_id": None,
                "data": {"codec": "msgpack", "bytes": b"\x01"},
                "dws": 1,
            },
        ),
        (
            "t",
            header_of("json", {"a": "b"}) + b"1",
            {"type": "send", "topic": "t", "conn_id": None, "data": {"dws": {"a": "b"}, "data": 1}, "dws": 1},
        ),
    ],
)
async def test_original_broker_receives_dicts(topic: str, payload: bytes, expected: dict[str, Any]) -> None:
    inner = OriginalBroker()
    node = await Node(inner).start()
    await node.publish(payload, topic)
    await node.broker.stop()
    assert inner.published == [expected]


@pytest.mark.parametrize(
    "data",
    [{"dws": {"a": "b"}, "data": 1}, {"dws": 1, "data": {"dws": {"a": "b"}, "data": 1}}],
    ids=["ours", "original"],
)
@pytest.mark.usefixtures("_no_pause")
async def test_original_broker_returns_attributes(data: Any) -> None:
    """Brokers of the original library leave the members of a message around its data."""
    inner = OriginalBroker()
    inner.messages = [Message(data=data, typ="send", topic="t")]
    node = await Node(inner).start()
    (record,) = await node.heard()
    assert record.payload == header_of("json", {"a": "b"}) + b"1"
    await node.broker.stop()


@pytest.mark.parametrize(
    ("message", "topic", "data"),
    [
        (Message(data=1, typ="send", topic="t"), "t", 1),
        (Message(data={"data": 1, "dws": 1}, typ="send", topic="t"), "t", 1),
        (Message(data={"data": 1}, typ="send", topic="t"), "t", {"data": 1}),
        (Message(data=1, typ="broadcast"), ALL, 1),
        (Message(data=1, typ="send_by_conn_id", conn_id="a/b"), conn_topic("a/b"), 1),
    ],
)
@pytest.mark.usefixtures("_no_pause")
async def test_original_broker_returns_messages_or_none(message: Message, topic: str, data: Any) -> None:
    inner = OriginalBroker()
    inner.messages = [None, message]
    node = await Node(inner).start()
    (record,) = await node.heard()
    assert (record.topic, record.payload) == (topic, header_of("json") + JSONCodec().encode(data))
    await node.broker.stop()
