"""Bursts over `outbox_bytes`: clients that read receive all of it, and clients that do not are closed."""

from __future__ import annotations

import asyncio

import pytest
from support.apps import chat
from support.every_server import on_every_server, serve_on
from support.raw_client import TEXT, RawClient
from support.servers import Client, serve
from support.timeouts import HANG_S, progress_timeout

from dws_core import Limits, WebSocketManager
from dws_core._node.sending.outbox import Outbox


async def _receive_all(client: Client, count: int) -> list[int]:
    numbers: list[int] = []
    async with progress_timeout() as progress:
        while len(numbers) < count:
            if (frame := await client.receive())["type"] != "pos":
                numbers.append(frame["data"]["n"])
            progress()
    return numbers


async def _publish(manager: WebSocketManager, count: int, size: int, *, awaits: bool) -> None:
    for number in range(count):
        pending = manager.publish("t", {"n": number, "x": "x" * size})
        if awaits:
            await pending


@on_every_server
@pytest.mark.parametrize(
    ("count", "size", "awaits"),
    [(150, 10_000, False), (400, 10_000, True), (11, 100_000, True), (11_000, 100, True)],
)
async def test_client_that_reads_receives_whole_burst(
    server: str, count: int, size: int, awaits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dws_core._node.sending.overruns.OVERRUN_S", HANG_S)  # a busy machine reads slowly
    manager, app = chat()
    async with serve_on(server, app) as url:
        async with Client.open(f"{url}/ws/a", max_size=None, compression=None, close_timeout=0.2) as client:
            await client.subscribe("t")
            async with asyncio.TaskGroup() as group:
                received = group.create_task(_receive_all(client, count))
                group.create_task(_publish(manager, count, size, awaits=awaits))
            assert received.result() == list(range(count))
            assert manager.stats().overflows == 0


async def test_awaited_publish_lets_other_tasks_run() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    manager, _ = chat()
    async with manager:
        counting = asyncio.get_running_loop().create_task(count_turns())
        for _ in range(100):
            await manager.publish("t", 1)
        assert turns >= 100
        counting.cancel()


async def test_publish_waits_only_for_receivers_that_read(monkeypatch: pytest.MonkeyPatch) -> None:
    manager, app = chat(limits=Limits(outbox_bytes=100_000, close_timeout_s=0.2, handler_grace_s=0))
    waits: list[Outbox] = []
    read = Outbox.read

    async def recorded(outbox: Outbox) -> None:
        waits.append(outbox)
        await read(outbox)

    monkeypatch.setattr(Outbox, "read", recorded)
    async with serve(app, ws_per_message_deflate=False) as server:
        async with RawClient.open(f"{server.url}/ws/slow", receive_buffer=4096) as slow:
            slow.send(TEXT, b'{"type":"subscribe","topic":"heavy","id":1}')
            await slow.receive()
            (connection,) = manager.active_connections
            async with asyncio.timeout(HANG_S):
                while not manager._runtime.overruns:
                    await manager.publish("heavy", "x" * 50_000)
                waits.clear()
                await manager.publish("light", 1)
                assert waits == []
                await asyncio.to_thread(lambda: manager.publish("heavy", 1).result())
                assert waits or connection.closed, "a thread waits, too"
                while not connection.closed:
                    await manager.publish("heavy", "x" * 50_000)
            assert connection.close_code == 4000
            assert not manager._runtime.overruns
