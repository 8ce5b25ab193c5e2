"""The examples of the original library's README, unchanged except for the import."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from starlette.testclient import TestClient
from starlette.websockets import WebSocket as StarletteWebSocket
from support.servers import Client, serve
from websockets.exceptions import InvalidStatus

import dws_core
from dws_core import (
    BrokerInterface,
    Connection,
    InvalidSubscription,
    InvalidSubscriptionMessage,
    Message,
    WebSocketManager,
    WebSocketOAuth2PasswordBearer,
    WebSocketProxy,
    ahandle,
    handle,
    handle_subscription_message,
    matches,
    subscribe,
    unsubscribe,
)


def _first_endpoint(app: FastAPI, manager: WebSocketManager) -> None:
    @app.websocket("/ws/{conn_id}")
    async def websocket_endpoint(
        ws: WebSocket,
        conn_id: str,
        *,
        topic: Optional[Any] = None,  # noqa: UP045 -- as in the README
    ) -> None:
        connection: Connection = await manager.new_connection(ws, conn_id)
        try:
            while True:
                msg = await connection.receive_json()
                await manager.broadcast(msg)
        except WebSocketDisconnect:
            await manager.remove_connection(connection)


def _second_endpoint(app: FastAPI, manager: WebSocketManager) -> None:
    @app.websocket("/ws/{conn_id}")
    async def websocket_endpoint(
        ws: WebSocket,
        conn_id: str,
        *,
        topic: Optional[Any] = None,  # noqa: UP045 -- as in the README
    ) -> None:
        connection: Connection = await manager.new_connection(ws, conn_id)
        # This is the preferred way of handling WebSocketDisconnect
        async for msg in connection.iter_json():
            await manager.receive(connection, msg)
        await manager.remove_connection(connection)


def _app(manager: WebSocketManager) -> FastAPI:
    return FastAPI(lifespan=manager.lifespan)


async def test_first_chat_endpoint_works() -> None:
    manager = WebSocketManager("channel:1", broker_url="memory://")
    app = _app(manager)
    _first_endpoint(app, manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as a, Client.open(f"{server.url}/ws/b") as b:
        await a.send(hello=1)
        assert (await a.receive())["data"] == {"hello": 1}  # both are connected now
        await b.send(hello=2)
        assert (await a.receive())["data"] == {"hello": 2}


async def test_second_chat_endpoint_works() -> None:
    manager = WebSocketManager("channel:1", broker_url="memory://")
    app = _app(manager)
    _second_endpoint(app, manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as a, Client.open(f"{server.url}/ws/b") as b:
        await a.send(type="subscribe", topic="chat/#")
        await a.send(type="send", topic="chat/1", text="own")
        assert (await a.receive())["data"] == {"text": "own"}
        await b.send(type="send", topic="chat/1", text="hi")
        assert (await a.receive())["data"] == {"text": "hi"}
        await b.send(type="send_by_conn_id", conn_id="a", text="you")
        assert (await a.receive())["data"] == {"text": "you"}
        await b.send(type="broadcast", text="all")
        assert (await a.receive())["data"] == (await b.receive())["data"] == {"text": "all"}


async def test_startup_and_shutdown_work_directly_and_as_context() -> None:
    manager = WebSocketManager("channel:1", broker_url="memory://")
    await manager.startup()
    await manager.shutdown()
    async with WebSocketManager("channel:1", broker_url="memory://") as manager:
        assert list(manager) == manager.active_connections == []
        assert manager.broker_channel == "channel:1"


async def test_proxy_behind_gateway_works() -> None:
    manager = WebSocketManager("channel:1", broker_url="memory://")
    service = _app(manager)
    _second_endpoint(service, manager)
    async with serve(service) as upstream:
        WS_TARGET_ENDPOINT = f"{upstream.url}/ws/{{}}"  # noqa: N806 -- as in the README
        gateway = FastAPI()

        @gateway.websocket("/ws/{conn_id}")
        async def websocket_endpoint(
            ws: WebSocket,
            conn_id: str,
        ) -> None:
            await ws.accept()
            ws_proxy = WebSocketProxy(ws, WS_TARGET_ENDPOINT.format(conn_id))
            await ws_proxy()

        async with serve(gateway) as front, Client.open(f"{front.url}/ws/a") as client:
            await client.subscribe("chat/#")
            await client.send(type="send", topic="chat/1", text="through")
            assert (await client.receive())["data"] == {"text": "through"}


async def test_authentication_works_as_dependency() -> None:
    app = FastAPI()
    strict = WebSocketOAuth2PasswordBearer("/token")
    lenient = WebSocketOAuth2PasswordBearer("/token", auto_error=False)

    @app.websocket("/strict")
    async def with_token(ws: WebSocket, token: str = Depends(strict)) -> None:
        await ws.accept()
        await ws.send_json(token)

    @app.websocket("/lenient")
    async def without(ws: WebSocket, token: str | None = Depends(lenient)) -> None:
        await ws.accept()
        await ws.send_json(token)

    async with serve(app) as server:
        headers = {"Authorization": "Bearer secret"}
        async with Client.open(f"{server.url}/strict", additional_headers=headers) as client:
            assert await client.receive() == "secret"
        async with Client.open(f"{server.url}/lenient") as client:
            assert await client.receive() is None
        for wrong in ({}, {"Authorization": "Basic secret"}, {"Authorization": "Bearer "}):
            with pytest.raises(InvalidStatus) as refused:
                async with Client.open(f"{server.url}/strict", additional_headers=wrong):
                    pass
            assert refused.value.response.status_code == 401


async def test_authentication_after_accept_closes_with_1008() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        await WebSocketOAuth2PasswordBearer("/token")(ws)

    async with serve(app) as server, Client.open(server.url) as client:
        assert (await client.wait_closed()).rcvd.code == 1008


def test_exception_has_connection_and_decorator_handles_it() -> None:
    marker: Any = object()
    seen: list[object] = []

    def on_error(exc: dws_core.WebSocketException) -> str:
        seen.append(exc.connection)
        return exc.message

    @handle(dws_core.WebSocketException, on_error)
    def fail() -> str:
        raise InvalidSubscription("bad", connection=marker)

    assert fail() == "bad"
    assert seen == [marker]
    assert issubclass(dws_core.WebSocketException, Exception)


async def test_ahandle_handles_async_and_sync_functions() -> None:
    async def on_error(exc: RuntimeError) -> str:
        return f"exc: {exc}"

    @ahandle(RuntimeError, on_error)
    async def fail_async() -> None:
        raise RuntimeError("test")

    @ahandle(RuntimeError, on_error)
    def fail() -> None:
        raise RuntimeError("test")

    @ahandle(KeyError, on_error)  # type: ignore[arg-type]
    def other() -> None:
        raise RuntimeError("other")

    assert await fail_async() == await fail() == "exc: test"
    with pytest.raises(RuntimeError, match="other"):
        await other()


class MyBroker(BrokerInterface):
    """A custom broker in the style of the original, which publishes dicts and returns `Message`."""

    def __init__(self, queue: asyncio.Queue[Any]) -> None:
        self._queue = queue
        self._channels: set[str] = set()

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def subscribe(self, channel: str) -> None:
        self._channels.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        self._channels.discard(channel)

    async def publish(self, channel: str, message: Any) -> None:
        await self._queue.put((channel, message))

    async def get_message(self, **kwargs: Any) -> Message | None:
        channel, message = await self._queue.get()
        data = dict(message)
        typ, topic, conn_id = data.pop("type"), data.pop("topic"), data.pop("conn_id")
        if channel not in self._channels:
            return None
        return Message(data=data, typ=typ, topic=topic, conn_id=conn_id)


async def test_custom_broker_is_created_from_class() -> None:
    manager = WebSocketManager("channel:1", broker_class=MyBroker, queue=asyncio.Queue())
    app = _app(manager)
    _second_endpoint(app, manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        assert isinstance(manager.broker, MyBroker)
        await client.subscribe("chat/#")
        assert await client.exchange(type="send", topic="chat/1", data=[1], id=1) in (
            {"type": "ack", "id": 1},
            {"type": "message", "topic": "chat/1", "data": [1]},
        )
        await client.receive()
        await client.send(type="broadcast", data={"b": 1})
        assert await client.receive() == {"type": "message", "data": {"b": 1}}
        await client.send(type="send_by_conn_id", conn_id="a", data="d")
        assert await client.receive() == {"type": "message", "conn_id": "a", "data": "d"}


@pytest.mark.parametrize(("name", "url"), [("InMemoryBroker", "memory://lobby"), ("RedisBroker", "redis://a:6379/3")])
def test_plugin_broker_is_created_from_class_and_url(name: str, url: str) -> None:
    module = {"InMemoryBroker": "dws_memory", "RedisBroker": "dws_redis"}[name]
    pytest.importorskip(module, reason=f"needs {module}: pip install ./plugins/{module}")
    broker_class = getattr(dws_core, name)
    manager = WebSocketManager("channel:1", broker_url=url, broker_class=broker_class)
    assert isinstance(manager.broker, broker_class)
    assert url in repr(manager.broker)


def test_custom_broker_without_url_support_is_created() -> None:
    class Mine(MyBroker):
        def __init__(self) -> None:
            super().__init__(asyncio.Queue())

    manager = WebSocketManager("channel:1", broker_url="localhost:6379", broker_class=Mine)
    assert isinstance(manager.broker, Mine)


def test_matches_compares_levels() -> None:
    assert matches("root/sub1/sub2", {"root/sub2/sub2", "root/sub1/+"})
    assert matches("root/sub1/sub2", {"root/#"})
    assert not matches("root/sub1/sub2", {"root/+", "+/sub2"})


def test_connection_without_manager_subscribes_by_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = StarletteWebSocket(scope, receive=receive, send=send)
        connection = Connection(websocket, "test")
        await connection.accept()
        await connection.send_json({"your_id": connection.id})
        async for data in connection.iter_json():
            message = Message.from_client_message(data=data)
            try:
                handle_subscription_message(connection, message)
            except (InvalidSubscription, InvalidSubscriptionMessage) as error:
                await connection.send_json({"error": type(error).__name__})
            else:
                await connection.send_json(sorted(connection.topics))

    with TestClient(app).websocket_connect("/") as client:
        assert client.receive_json() == {"your_id": "test"}
        for sent, answer in (
            ({"type": "subscribe", "topic": "test/1"}, ["test/1"]),
            ({"type": "subscribe", "topic": "test/2"}, ["test/1", "test/2"]),
            ({"type": "unsubscribe", "topic": "test/1"}, ["test/2"]),
            ({"type": "send", "topic": "test/1"}, {"error": "InvalidSubscriptionMessage"}),
            ({"type": "subscribe", "topic": "a/#/b"}, {"error": "InvalidSubscription"}),
        ):
            client.send_json(sent)
            assert client.receive_json() == answer


async def test_subscribe_functions_change_live_connection() -> None:
    manager = WebSocketManager("channel:1", broker_url="memory://")
    app = _app(manager)
    _second_endpoint(app, manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.exchange(type="ping")
        connection = manager.active_connections[0]
        subscribe(connection, Message(data={}, typ="subscribe", topic="news/+"))
        assert connection.topics == {"news/+"}
        await manager.send(Message(data=1, typ="send", topic="news/1"))
        assert (await client.receive())["data"] == 1
        unsubscribe(connection, Message(data={}, typ="unsubscribe", topic="news/+"))
        assert connection.topics == set()


def test_message_does_not_change_its_input() -> None:
    data = {"type": "send", "topic": "t", "text": "x"}
    message = Message.from_client_message(data=data)
    assert data == {"type": "send", "topic": "t", "text": "x"}
    assert (message.typ, message.type, message.topic, message.data) == ("send", "send", "t", {"text": "x"})
    assert message.__serialize__() == {"text": "x", "type": "send", "topic": "t", "conn_id": None}
    assert message.data == {"text": "x"}
