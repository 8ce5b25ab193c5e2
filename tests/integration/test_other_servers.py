"""Servers without support for ready frames: the same behaviour through ASGI messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeAlias

import pytest
from starlette.testclient import TestClient
from support.apps import chat
from support.every_server import granian, hypercorn
from support.raw_client import TEXT, RawClient
from support.servers import HANG_S, Client
from websockets.exceptions import InvalidStatus

from dws_core import History, Limits
from dws_core.client import Client as PythonClient

ServeOn: TypeAlias = Callable[[Any], AbstractAsyncContextManager[str]]


SOON = {"close_timeout": 0.2}
"""hypercorn leaves the TCP close to the client."""

OTHER_SERVERS = pytest.mark.parametrize("server", [hypercorn, granian], ids=lambda server: server.__name__)


@OTHER_SERVERS
async def test_chat_works_on_other_servers(server: ServeOn) -> None:
    manager, app = chat()
    async with server(app) as url:
        async with Client.open(f"{url}/ws/a", **SOON) as a, Client.open(f"{url}/ws/b", **SOON) as b:
            await a.subscribe("t")
            await b.subscribe("t")
            for number in range(50):
                await a.send(type="send", topic="t", data=number)
            assert [(await b.receive())["data"] for _ in range(50)] == list(range(50))
            assert manager.stats().ready_connections == 0
            await manager.send_to("b", "directly")
            assert (await b.receive())["data"] == "directly"
        async with Client.open(f"{url}/ws/c", **SOON) as c:
            await c.subscribe("t")
            (connection,) = [one for one in manager.active_connections if one.id == "c"]
            await connection.close(4500, "out")
            closed = await c.wait_closed()
            assert closed.rcvd is not None
            assert (closed.rcvd.code, closed.rcvd.reason) == (4500, "out")


@OTHER_SERVERS
async def test_twenty_clients_on_other_servers_receive_all(server: ServeOn) -> None:
    manager, app = chat()
    async with server(app) as url, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.open(f"{url}/ws/{n}", **SOON)) for n in range(20)]
        for client in clients:
            await client.subscribe("t")
        for number in range(50):
            await manager.publish("t", number)
        for client in clients:
            assert [(await client.receive())["data"] for _ in range(50)] == list(range(50))


@OTHER_SERVERS
async def test_client_of_other_server_resumes_after_cut(server: ServeOn) -> None:
    manager, app = chat(history={"t": History(size=100)})
    async with server(app) as url, PythonClient(f"{url}/ws/a", proxy=False) as client:
        async with client.subscribe("t") as messages:
            await manager.publish("t", 0)
            assert (await anext(messages)).data == 0
            link: Any = client._link
            link._socket.transport.abort()
            for number in range(1, 6):
                await manager.publish("t", number)
            assert [(await asyncio.wait_for(anext(messages), HANG_S)).data for _ in range(5)] == [1, 2, 3, 4, 5]


@OTHER_SERVERS
async def test_other_servers_refuse_before_accept(server: ServeOn) -> None:
    """The origin, the token and the path of the handshake."""
    _, app = chat(verify_token=lambda _: None)
    async with server(app) as url:
        for path, status, arguments in (
            ("/ws/a", 403, {"origin": "https://evil.example"}),
            ("/ws/a", 401, {}),
            ("/nowhere", 403, {}),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with Client.open(url + path, **arguments):
                    pass
            assert refused.value.response.status_code == status


@OTHER_SERVERS
async def test_slow_client_on_other_servers_is_closed(server: ServeOn) -> None:
    """The other clients are not affected."""
    manager, app = chat(limits=Limits(outbox_bytes=100_000, close_timeout_s=0.2, handler_grace_s=0))
    async with server(app) as url, Client.open(f"{url}/ws/quick") as quick:
        async with RawClient.open(f"{url}/ws/slow", receive_buffer=4096) as slow:
            await quick.subscribe("small")
            slow.send(TEXT, b'{"type":"subscribe","topic":"#","id":1}')
            await slow.receive()
            (slow_one,) = [one for one in manager.active_connections if one.id == "slow"]
            number = 0
            while not slow_one.closed:
                await manager.publish("large", "x" * 50_000)
                await manager.publish("small", number)
                assert (await quick.receive())["data"] == number
                number += 1
                assert number < 500, "the slow client is never noticed"
            assert slow_one.close_code == 4000


def test_chat_works_in_starlette_test_client() -> None:
    _, app = chat()
    with TestClient(app) as client, client.websocket_connect("/ws/a") as a, client.websocket_connect("/ws/b") as b:
        for one in (a, b):
            one.send_json({"type": "subscribe", "topic": "t", "id": 1})
            assert one.receive_json()["type"] == "ack"
        a.send_json({"type": "send", "topic": "t", "data": "hello"})
        assert [one.receive_json()["data"] for one in (a, b)] == ["hello", "hello"]
