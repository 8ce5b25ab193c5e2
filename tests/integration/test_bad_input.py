"""Every kind of bad input gets its documented error, and other connections are not affected."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import WebSocket
from support.apps import chat, chat_app
from support.calls import event_of_a_close
from support.servers import Client, serve
from support.timeouts import HANG_S
from websockets.exceptions import InvalidStatus

from dws_core import (
    BrokerInterface,
    ConfigurationError,
    InvalidBrokerURL,
    InvalidFilter,
    InvalidMessage,
    InvalidTopic,
    Limits,
    Message,
    PluginNotFound,
    WebSocketManager,
)
from dws_core._topics.trie import MqttMatcher
from dws_core.testing import FakeWebSocket


async def _still_works(client: Client) -> None:
    assert await client.exchange(type="ping", id="alive") == {"type": "pong", "id": "alive"}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("not json", "invalid-message"),
        ("[1]", "invalid-message"),
        ("null", "invalid-message"),
        ("{}", "invalid-message"),
        ('{"typ": "login", "password": "a typo", "id": 7}', "invalid-message"),
        ('{"data": 1, "id": 7}', "invalid-message"),
        ('{"type": "", "data": 1, "id": 7}', "invalid-message"),
        ('{"type": 1, "id": 7}', "invalid-message"),
        ('{"type": "send", "topic": 5, "id": 7}', "invalid-message"),
        ('{"type": "send", "id": 7}', "broadcast-is-not-meant"),
        ('{"type": "send", "topic": "a/+", "id": 7}', "invalid-topic"),
        ('{"type": "send", "topic": "", "id": 7}', "invalid-topic"),
        ('{"type": "send", "topic": "$all", "id": 7}', "forbidden"),
        ('{"type": "subscribe", "topic": "$conn/x", "id": 7}', "forbidden"),
        ('{"type": "subscribe", "topic": "a/#/b", "id": 7}', "invalid-filter"),
        ('{"type": "subscribe", "id": 7}', "invalid-message"),
        ('{"type": "send_by_conn_id", "conn_id": [1], "id": 7}', "invalid-message"),
        ('{"type": "send_by_conn_id", "data": 1, "id": 7}', "invalid-message"),
        ('{"type": "set_conn_id", "conn_id": "admin", "id": 7}', "unknown-type"),
        ('{"type": "connect", "data": 5, "id": 7}', "invalid-message"),
        ('{"type": "connect", "data": {"filters": ["a#"]}, "id": 7}', "invalid-filter"),
        ('{"type": "connect", "data": {"filters": ["$all"]}, "id": 7}', "forbidden"),
        ('{"type": "connect", "data": {"cursor": "x"}, "id": 7}', "invalid-message"),
        ('{"type": "subscribe", "topic": "t", "cursor": "x", "id": 7}', "invalid-message"),
        ('{"type": "history", "topic": "t", "id": 7}', "invalid-message"),
        ('{"type": "history", "topic": "t", "limit": 0, "id": 7}', "invalid-message"),
        ('{"type": "history", "topic": "t/+", "limit": 5, "id": 7}', "invalid-topic"),
        ('{"type": "history", "topic": "$all", "limit": 5, "id": 7}', "forbidden"),
        ('{"type": "no such", "id": 7}', "unknown-type"),
        ('{"type": "send", "topic": "t", "key": "", "id": 7}', "invalid-message"),
        ('{"type": "broadcast", "data": 1, "key": "' + "k" * 1025 + '", "id": 7}', "invalid-message"),
        ('{"type": "send_by_conn_id", "conn_id": "a", "key": "' + "é" * 513 + '", "id": 7}', "invalid-message"),
    ],
)
async def test_bad_message_gets_error_and_connection_stays_open(sent: str, code: str) -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.socket.send(sent)
        answer = await client.receive()
        assert answer["type"] == "error"
        assert answer["code"] == ("invalid-message" if code == "broadcast-is-not-meant" else code)
        assert answer["temporary"] is False
        if '"id": 7' in sent:
            assert answer["id"] == 7
        await _still_works(client)


@pytest.mark.parametrize("text", ["\ud800", "x" * 1025])
async def test_unsupported_text_is_rejected_before_broker(text: str) -> None:
    """The methods of the manager and the messages of a client are checked alike."""

    class AnyTopic(MqttMatcher):
        def check_topic(self, topic: str) -> str:
            return topic

    manager, app = chat(topic_matcher=AnyTopic())
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.exchange(type="ping")
        for call in (
            lambda: manager.publish("t", 1, key=text),
            lambda: manager.broadcast(1, key=text),
            lambda: manager.send_to(["a", "b"], 1, key=text),
            lambda: manager.send_to(["a", text], 1),
            lambda: manager.send_by_conn_id(Message(data=1, typ="send_by_conn_id", conn_id=text)),
            lambda: manager.set_conn_id(manager.active_connections[0], text),
        ):
            with pytest.raises(InvalidMessage, match="Fix:"):
                call()
        with pytest.raises(InvalidTopic, match="Fix:"):
            manager.publish(text, 1)
        for members, code in (
            ({"topic": "t", "key": text}, "invalid-message"),
            ({"topic": text}, "invalid-topic"),
            ({"typ": "send_by_conn_id", "conn_id": ["a", text]}, "invalid-message"),
        ):
            message = Message(**{"data": 1, "typ": "send", "id": 7, **members})  # type: ignore[arg-type]
            await manager.receive(manager.active_connections[0], message)
            answer = await client.receive()
            assert (answer["type"], answer["id"], answer["code"]) == ("error", 7, code)
        assert manager.stats().published == 0
        await _still_works(client)


async def test_untyped_message_may_be_broadcast() -> None:
    """The rule of the original library."""
    _, app = chat(untyped="broadcast")
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.send(text="hello")
        assert (await client.receive())["data"] == {"text": "hello"}


async def test_deeply_nested_json_is_error_for_sender_only() -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.socket.send("[" * 20_000 + "]" * 20_000)
        assert (await client.receive())["code"] == "invalid-message"
        await _still_works(client)


async def test_binary_frame_on_text_codec_closes_with_1003() -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.socket.send(b"\x00")
        assert (await client.wait_closed()).rcvd.code == 1003


async def test_oversized_message_closes_only_sender_with_1009() -> None:
    _, app = chat(limits=Limits(message_bytes=100))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with Client.open(f"{server.url}/ws/b") as neighbour:
            await client.send(type="send", topic="t", data="é" * 60)
            assert (await client.wait_closed()).rcvd.code == 1009
            await _still_works(neighbour)


async def test_data_over_broker_limit_is_too_large() -> None:
    _, app = chat("memory://?max_payload_bytes=100")
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        assert (await client.exchange(type="send", topic="t", data="x" * 200, id=1))["code"] == "too-large"
        await _still_works(client)


async def test_filter_over_limit_is_rejected() -> None:
    _, app = chat(limits=Limits(filters=2))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("a")
        await client.subscribe("b")
        await client.subscribe("b")
        assert (await client.exchange(type="subscribe", topic="c", id=1))["code"] == "too-many-filters"
        await client.exchange(type="unsubscribe", topic="a", id=2)
        await client.subscribe("c")


async def test_excess_messages_are_limited_then_flood_is_closed() -> None:
    _, app = chat(limits=Limits(messages_per_s=0.001, burst=2, flood_messages=3))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with Client.open(f"{server.url}/ws/b") as neighbour:
            for _ in range(2):
                assert (await client.exchange(type="ping"))["type"] == "pong"
            answer = await client.exchange(type="ping", id=3)
            assert (answer["code"], answer["temporary"], answer["id"]) == ("rate-limited", True, 3)
            assert answer["retry_in_s"] > 0
            for _ in range(3):
                await client.send(type="ping")
            assert (await client.wait_closed()).rcvd.code == 4503
            await _still_works(neighbour)


async def test_unknown_subprotocol_is_rejected_with_400() -> None:
    """The response lists the supported ones."""
    _, app = chat()
    async with serve(app) as server:
        for offered in (["nope"], ["dws.bearer.eA"]):
            with pytest.raises(InvalidStatus) as refused:
                async with Client.open(f"{server.url}/ws/a", subprotocols=offered):
                    pass
            assert refused.value.response.status_code == 400
            assert b"dws.v1.json, dws.v1.msgpack" in refused.value.response.body


async def test_full_node_rejects_with_503() -> None:
    _, app = chat(limits=Limits(connections=1))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await _still_works(client)
        with pytest.raises(InvalidStatus) as refused:
            async with Client.open(f"{server.url}/ws/b"):
                pass
        assert refused.value.response.status_code == 503


async def test_client_that_never_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other clients are not delayed."""
    manager, app = chat(limits=Limits(outbox_bytes=1_000_000, close_timeout_s=0.2, handler_grace_s=0))
    gone = event_of_a_close(monkeypatch)
    # without compression, which would make the data too small to fill the kernel's buffers
    async with serve(app, ws_per_message_deflate=False) as server, Client.open(f"{server.url}/ws/good") as good:
        await good.subscribe("t")
        async with Client.open(f"{server.url}/ws/bad", max_queue=1) as bad:
            await bad.subscribe("t")
            assert bad.socket.transport is not None
            bad.socket.transport.pause_reading()
            for number in range(1_000):
                if gone.is_set():
                    break
                await manager.publish("t", {"n": number, "pad": "x" * 200_000})
                assert (await good.receive())["data"]["n"] == number
            await asyncio.wait_for(gone.wait(), HANG_S)
            assert [c.id for c in manager.active_connections] == ["good"]
            bad.socket.transport.abort()


async def test_lost_client_is_removed_and_sends_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        connection = manager.active_connections[0]
        gone = event_of_a_close(monkeypatch)
        client.socket.transport.abort()
        await asyncio.wait_for(gone.wait(), HANG_S)
        assert manager.active_connections == []
        for number in range(10_000):
            assert await connection.send_json(number) is False
        await manager.publish("t", 1)


async def test_failing_handler_closes_connection_with_1011() -> None:
    manager = WebSocketManager("chat", broker_url="memory://")
    app = chat_app(manager)

    @app.websocket("/broken")
    async def broken(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "broken") as connection:
            await connection.receive_json()
            raise RuntimeError("a bug")

    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as neighbour:
        async with Client.open(f"{server.url}/broken") as client:
            await client.send(type="ping")
            assert (await client.wait_closed()).rcvd.code == 1011
        await _still_works(neighbour)


class _Raising(BrokerInterface):
    """A broker plugin that connects, and then raises on every publish."""

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def subscribe(self, channel: str) -> None: ...

    async def unsubscribe(self, channel: str) -> None: ...

    async def publish(self, channel: str, message: Any) -> None:
        raise RuntimeError("secret detail")

    async def get_message(self, **kwargs: Any) -> None:
        await asyncio.Event().wait()


async def test_broker_error_reply_hides_details() -> None:
    manager = WebSocketManager("chat", broker=_Raising())
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/a") as client:
        answer = await client.exchange(type="send", topic="t", data=1, id=1)
        assert (answer["type"], answer["id"]) == ("error", 1)
        assert "secret" not in answer["message"]
        await _still_works(client)


def test_configuration_errors_are_raised_at_construction() -> None:
    with pytest.raises(PluginNotFound, match="Did you mean 'memory'"):
        WebSocketManager("c", broker_url="memroy://")
    with pytest.raises(InvalidBrokerURL, match="scheme"):
        WebSocketManager("c", broker_url="no url")
    with pytest.raises(InvalidBrokerURL, match="key_ttl_s"):
        WebSocketManager("c", broker_url="memory://?nope=1")
    with pytest.raises(ConfigurationError, match="broker_url"):
        WebSocketManager("c")
    with pytest.raises(ConfigurationError, match="typo"):
        WebSocketManager("c", broker_url="memory://", typo=1)
    with pytest.raises(PluginNotFound, match="Did you mean 'json'"):
        WebSocketManager("c", broker_url="memory://", codec="jsno")


async def test_invalid_topic_of_application_raises() -> None:
    async with WebSocketManager("c", broker_url="memory://") as manager:
        with pytest.raises(InvalidTopic):
            manager.publish("a/#", 1)
        with pytest.raises(InvalidTopic, match="are reserved for the node"):
            manager.publish("$all", 1)
        with pytest.raises(InvalidFilter):
            await manager.new_connection(FakeWebSocket(), "x", topic="a/#/b")
