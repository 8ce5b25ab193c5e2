"""What is refused before a connection begins: too many clients, slow handshakes, invalid ids."""

from __future__ import annotations

import asyncio

import pytest
from support.apps import chat
from support.servers import Client, Server, serve
from websockets.exceptions import InvalidStatus

from dws_core import Limits, Principal


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
