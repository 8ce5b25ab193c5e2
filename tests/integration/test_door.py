"""What is refused before a connection begins: too many clients, slow handshakes, invalid ids."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from support.apps import chat
from support.calls import event_of_call
from support.servers import HANG_S, Client, Server, serve
from websockets.exceptions import InvalidStatus

from dws_core import Limits, Principal
from dws_core.server import HTTPProtocol


class Gate:
    """An authenticator that waits until the gate is open."""

    def __init__(self) -> None:
        self.waiting = 0
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()

    async def authenticate(self, handshake: object) -> Principal:
        self.waiting += 1
        self.arrived.set()
        await self.open.wait()
        return Principal(id="somebody")


async def status_of(server: Server, path: str) -> int:
    """Return the status of a refused handshake, or 101."""
    try:
        async with Client.open(server.url + path):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_clients_in_handshake_count_as_connections() -> None:
    gate = Gate()
    _, app = chat(authenticator=gate, limits=Limits(connections=3))
    async with serve(app) as server, asyncio.TaskGroup() as group:
        tasks = [group.create_task(status_of(server, f"/ws/{number}")) for number in range(10)]
        refused = 0
        while refused < 7:
            done, _ = await asyncio.wait([task for task in tasks if not task.done()], return_when="FIRST_COMPLETED")
            assert all(task.result() == 503 for task in done)
            refused += len(done)
        assert gate.waiting == 3
        gate.open.set()


async def test_failed_handshake_makes_room_again() -> None:
    _, app = chat(verify_token=lambda token: None, limits=Limits(connections=1))
    async with serve(app) as server:
        assert [await status_of(server, "/ws/a") for _ in range(3)] == [401, 401, 401]


async def test_handshake_that_hangs_is_refused() -> None:
    manager, app = chat(authenticator=Gate(), limits=Limits(handshake_s=0.05))
    async with serve(app) as server:
        assert await status_of(server, "/ws/a") == 503
        assert len(manager) == 0


@pytest.mark.parametrize("conn_id", ["x" * 300, "%F0%9F%92%A9" * 65])
async def test_invalid_id_in_url_is_refused_with_400(conn_id: str) -> None:
    _, app = chat()
    async with serve(app) as server:
        assert await status_of(server, f"/ws/{conn_id}") == 400


async def test_idle_connection_is_closed() -> None:
    """A connection that sends messages or has a filter stays open."""
    manager, app = chat(limits=Limits(idle_s=2.0, messages_per_s=None))
    async with serve(app) as server, Client.open(f"{server.url}/ws/subscribed") as subscribed:
        await subscribed.subscribe("t")
        async with Client.open(f"{server.url}/ws/busy") as busy, Client.open(f"{server.url}/ws/idle") as idle:
            async with asyncio.TaskGroup() as group:
                closed = group.create_task(idle.wait_closed())
                while not closed.done():
                    await busy.exchange(type="ping")
            assert (closed.result().rcvd.code, closed.result().rcvd.reason) == (1001, "idle")
            assert {connection.id for connection in manager.active_connections} == {"subscribed", "busy"}


async def test_connections_stay_idle_by_default() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        assert manager.limits.idle_s is None
        assert "idle" not in " ".join(task.get_name() for task in asyncio.all_tasks())
        await client.exchange(type="ping")


@pytest.mark.parametrize("begun", [b"", b"GET /ws/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"])
async def test_handshake_that_never_ends_is_dropped(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(HTTPProtocol, "request_s", 0.1)
    _, app = chat()
    async with serve(app, http="dws_core.server:HTTPProtocol") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(begun)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), HANG_S) == b""
        writer.close()


async def test_finished_handshake_ends_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = event_of_call(monkeypatch, HTTPProtocol, "_end_timeout")
    _, app = chat()
    async with serve(app, http="dws_core.server:HTTPProtocol") as server, Client.open(f"{server.url}/ws/a"):
        assert ended.is_set()


async def test_open_node_logs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A node on which every client may do everything says how to change that."""
    caplog.set_level(logging.WARNING)
    for options in ({"verify_token": lambda token: None}, {"authorize": lambda *_: True}, {}):
        manager, _ = chat(**options)
        for _ in range(2):
            async with manager:
                pass
    (record,) = [record for record in caplog.records if "is open" in record.getMessage()]
    assert "Fix: " in record.getMessage()
