"""Clients of the testing kit that read slowly, stop reading or vanish, and clients of any server."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI, WebSocket
from support.apps import chat
from support.timeouts import HANG_S

from dws_core import Limits, WebSocketManager
from dws_core.testing import AppClient, serve


async def test_client_that_does_not_read_is_closed() -> None:
    """The other clients are not affected."""
    manager, app = chat(limits=Limits(outbox_bytes=200_000))
    async with serve(app) as server, server.connect("/ws/bob") as bob:
        async with server.connect("/ws/alice", receive_buffer_bytes=4096) as alice:
            await alice.subscribe("t")
            await bob.subscribe("t")
            alice.stop_reading()
            for _ in range(300):  # more than the socket buffers and the outbox can hold
                await manager.publish("t", "x" * 50_000)
                await bob.assert_received("x" * 50_000)
            alice.resume_reading()
            await alice.assert_closed(4000)


async def test_client_receives_everything_after_pause() -> None:
    manager, app = chat()
    async with serve(app) as server, server.connect("/ws/alice", within_s=5 * HANG_S) as alice:
        await alice.subscribe("t")
        alice.stop_reading()
        for number in range(10):
            await manager.publish("t", number)
        alice.resume_reading()
        await alice.assert_received(*range(10))
        alice.stop_reading()
        async with asyncio.timeout(HANG_S):  # less than a client waits for the reply to its close frame
            await alice.close()


async def test_client_that_stops_reading_sends_no_pong() -> None:
    left = asyncio.Event()
    manager, app = _noting_who_leaves(left)
    async with serve(app, ws_ping_interval=0.05, ws_ping_timeout=1.0) as server, server.connect() as alice:
        await alice.request(type="ping")
        alice.stop_reading()
        await asyncio.wait_for(left.wait(), HANG_S)
    assert manager.active_connections == []


async def test_vanished_client_sends_no_close_frame() -> None:
    left = asyncio.Event()
    manager, app = _noting_who_leaves(left)
    async with serve(app) as server, server.connect() as alice:
        await alice.request(type="ping")
        alice.vanish()
        await asyncio.wait_for(left.wait(), HANG_S)
        await alice.assert_closed(1006)
    assert manager.active_connections == []


async def test_client_works_with_any_server() -> None:
    _, app = chat()
    async with serve(app) as server:
        server_url = server.url
        async with AppClient.open(f"{server_url}/ws/alice") as alice:
            assert (await alice.request(type="ping"))["type"] == "pong"
    with pytest.raises(OSError, match=r"(?i)connect"):
        async with AppClient.open(f"{server_url}/ws/alice"):
            raise AssertionError("nobody is there")


def _noting_who_leaves(left: asyncio.Event) -> tuple[WebSocketManager, FastAPI]:
    manager = WebSocketManager("chat", broker_url="memory://")
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "alice") as connection:
            async for message in connection:
                await manager.receive(connection, message)
            left.set()

    return manager, app
