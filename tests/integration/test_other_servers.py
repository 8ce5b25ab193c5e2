"""Servers without support for ready frames: the same behaviour through ASGI messages."""

from __future__ import annotations

from starlette.testclient import TestClient
from support.apps import chat
from support.every_server import hypercorn
from support.raw_client import TEXT, RawClient
from support.servers import Client

from dws_core import Limits


async def test_chat_works_on_hypercorn() -> None:
    manager, app = chat()
    async with hypercorn(app) as url:
        soon = {"close_timeout": 0.2}  # hypercorn leaves the TCP close to the client
        async with Client.open(f"{url}/ws/a", **soon) as a, Client.open(f"{url}/ws/b", **soon) as b:
            await a.subscribe("t")
            await b.subscribe("t")
            for number in range(50):
                await a.send(type="send", topic="t", data=number)
            assert [(await b.receive())["data"] for _ in range(50)] == list(range(50))
            assert manager.stats().ready_connections == 0
            await manager.send_to("b", "directly")
            assert (await b.receive())["data"] == "directly"
        async with Client.open(f"{url}/ws/c", **soon) as c:
            (connection,) = [one for one in manager.active_connections if one.id == "c"]
            await connection.close(4500, "out")
            closed = await c.wait_closed()
            assert closed.rcvd is not None
            assert (closed.rcvd.code, closed.rcvd.reason) == (4500, "out")


async def test_slow_client_on_hypercorn_is_closed() -> None:
    """The other clients are not affected."""
    manager, app = chat(limits=Limits(outbox_bytes=100_000, close_timeout_s=0.2, handler_grace_s=0))
    async with hypercorn(app) as url, Client.open(f"{url}/ws/quick") as quick:
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
