"""Values of applications on the wire: live, in the history and in a replay, with both built-in codecs."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest
from support.apps import chat
from support.servers import HANG_S, Server, serve
from websockets.asyncio.client import connect

from dws_core import CodecError, Message, WebSocketManager
from dws_core.client import Client
from dws_core.testing import FakeWebSocket


class Item(pydantic.BaseModel):
    id: uuid.UUID
    at: datetime


class Text(str): ...


ITEM = Item(id=uuid.UUID(int=7), at=datetime(2026, 1, 2, tzinfo=UTC))
DUMPED = ITEM.model_dump(mode="json")
SENT = {"item": ITEM, "items": (ITEM,), Text("k"): Text("v"), None: {True: [1.5]}}
RECEIVED = {"item": DUMPED, "items": [DUMPED], "k": "v", "null": {"true": [1.5]}}
CODECS: dict[str, Any] = {
    "json": (json.dumps, json.loads),
    "msgpack": (msgspec.msgpack.encode, msgspec.msgpack.decode),
}


class Wire:
    """A client that speaks one codec."""

    def __init__(self, socket: Any, codec: str) -> None:
        self._socket = socket
        self._encode, self._decode = CODECS[codec]

    async def exchange(self, **members: Any) -> Any:
        await self._socket.send(self._encode(members))
        return await self.receive()

    async def receive(self) -> Any:
        return self._decode(await self._socket.recv())


@asynccontextmanager
async def _open(server: Server, codec: str) -> AsyncIterator[Wire]:
    url = f"{server.url}/ws/{codec}"
    async with connect(url, subprotocols=[f"dws.v1.{codec}"], proxy=None, open_timeout=HANG_S) as socket:  # type: ignore[list-item]
        yield Wire(socket, codec)


@pytest.mark.parametrize("codec", CODECS)
async def test_value_is_the_same_live_stored_and_replayed(codec: str) -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with _open(server, codec) as client:
            cursor = (await client.exchange(type="connect", data={"filters": ["t"]}, id=1))["cursor"]
            await manager.publish("t", SENT)
            assert (await client.receive())["data"] == RECEIVED
            history = await client.exchange(type="history", topic="t", limit=9, id=2)
            assert [message["data"] for message in history["messages"]] == [RECEIVED]
        async with _open(server, codec) as client:
            await client.exchange(type="connect", data={"filters": ["t"], "cursor": cursor}, id=1)
            assert (await client.receive())["data"] == RECEIVED
        assert [message.data for message in await manager.history("t")] == [RECEIVED]


@pytest.mark.parametrize("codec", CODECS)
async def test_every_sender_accepts_values(codec: str) -> None:
    manager, app = chat(codec="msgpack")
    async with serve(app) as server, _open(server, codec) as client:
        await client.exchange(type="subscribe", topic="t", id=1)
        plain = {"items": [ITEM]}
        await manager.broadcast(plain)
        await manager.send_to(codec, plain)
        await manager.send(Message(data=plain, typ="send", topic="t"))
        await manager.send_msg(Message(data=plain, typ="send_by_conn_id", conn_id=codec))
        for _ in range(4):
            assert (await client.receive())["data"] == {"items": [DUMPED]}
        (connection,) = manager.active_connections
        await connection.send_json(ITEM)
        assert await client.receive() == DUMPED


async def test_python_client_accepts_values() -> None:
    manager, app = chat()
    async with serve(app) as server, Client(f"{server.url}/ws/a") as client:
        await client.publish("t", SENT)
        assert [message.data for message in await manager.history("t")] == [RECEIVED]
        with pytest.raises(CodecError) as caught:
            await client.publish("t", {"items": [1, 1j]})
        assert caught.value.path == "data.items[1]"


async def test_refused_value_names_its_path_and_the_codec_of_the_manager() -> None:
    async with WebSocketManager("c", "memory://") as manager:
        for publish in (
            lambda data: manager.publish("t", data),
            manager.broadcast,
            lambda data: manager.send_to("a", data),
        ):
            with pytest.raises(CodecError) as caught:
                publish({"items": [{}, {"price": 1j}]})
            assert (caught.value.codec, caught.value.path) == ("json", "data.items[1].price")
        with pytest.raises(
            CodecError, match=r"codec 'msgpack': cannot encode data\[0\]: can't serialize ints"
        ) as caught:
            manager.publish("t", [2**70])
        assert caught.value.path == "data[0]"
        connection = await manager.new_connection(FakeWebSocket())
        with pytest.raises(CodecError) as caught:
            await connection.send_json({"price": 1j})
        assert caught.value.path == "data.price"
        await manager.close_connection(connection)


async def test_refusal_of_a_clients_value_names_its_path() -> None:
    _, app = chat()
    async with serve(app) as server, _open(server, "json") as client:
        error = await client.exchange(type="send", topic="t", data={"n": [2**70]}, id=1)
        assert error["code"] == "invalid-message"
        assert "data.n[0]" in error["message"]
