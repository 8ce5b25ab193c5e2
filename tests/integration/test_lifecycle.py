"""Starting and stopping a node, and blocked handlers."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fastapi import FastAPI, WebSocket
from support.apps import chat
from support.servers import HANG_S, Client, serve
from websockets.exceptions import InvalidStatus

from dws_core import BrokerClosed, Limits, WebSocketManager
from dws_core._tasks import Tasks
from dws_core.testing import FakeWebSocket


async def test_shutdown_closes_every_connection_with_1012() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as a, Client.open(f"{server.url}/ws/b") as b:
        await a.exchange(type="ping")
        await b.exchange(type="ping")
        await manager.shutdown()
        assert (await a.wait_closed()).rcvd.code == (await b.wait_closed()).rcvd.code == 1012
        assert manager.active_connections == []
        await manager.startup()


@pytest.mark.parametrize("style", ["connect", "original"])
async def test_blocked_handler_does_not_block_shutdown(style: str) -> None:
    manager = WebSocketManager("chat", broker_url="memory://", limits=Limits(handler_grace_s=0.05))
    app = FastAPI(lifespan=manager.lifespan)
    blocked = asyncio.Event()
    ended: list[str] = []

    @app.websocket("/connect")
    async def by_connect(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "x"):
            blocked.set()
            await asyncio.Event().wait()
        ended.append("after the block")

    @app.websocket("/original")
    async def by_hand(websocket: WebSocket) -> None:
        await manager.new_connection(websocket, "x")
        blocked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async with serve(app, log_level="critical") as server, Client.open(f"{server.url}/{style}"):
        await blocked.wait()
        server.should_exit = True
        # leaving the block waits for the server, at most HANG_S
    assert ended == ["after the block" if style == "connect" else "cancelled"]


async def test_send_only_handler_ends_with_its_client() -> None:
    manager = WebSocketManager("chat", broker_url="memory://", limits=Limits(handler_grace_s=0))
    app = FastAPI(lifespan=manager.lifespan)
    ended = asyncio.Event()

    @app.websocket("/ws")
    async def send_only(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "x") as connection:
            await connection.send_json("hello")
            await asyncio.Event().wait()
        ended.set()

    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws") as client:
            assert await client.receive() == "hello"
            client.socket.transport.abort()
        await asyncio.wait_for(ended.wait(), HANG_S)
        assert manager.active_connections == []


async def test_outside_cancellation_is_not_swallowed() -> None:
    manager = WebSocketManager("chat", broker_url="memory://")
    app = FastAPI(lifespan=manager.lifespan)
    running: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
    ended: list[str] = []

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with manager.connect(websocket, "x"):
                running.set_result(task)
                await asyncio.Event().wait()
            ended.append("swallowed")
        except asyncio.CancelledError:
            ended.append("cancelled")

    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        (await running).cancel()
        await client.wait_closed()
    assert ended == ["cancelled"]


async def test_slow_handler_causes_back_pressure_then_overloaded() -> None:
    limits = Limits(inbox_messages=2, handler_stall_s=0.05, messages_per_s=None)
    manager = WebSocketManager("chat", broker_url="memory://", limits=limits)
    app = FastAPI(lifespan=manager.lifespan)
    proceed = asyncio.Event()
    got: list[object] = []

    @app.websocket("/ws")
    async def slow(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "x") as connection:
            async for message in connection:
                await proceed.wait()
                got.append(message.data)
                await manager.receive(connection, message)

    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        for number in range(4):
            await client.send(type="ping", data=number, id=number)
        answer = await client.receive()
        assert (answer["code"], answer["temporary"], answer["id"]) == ("overloaded", True, 3)
        proceed.set()
        assert [(await client.receive())["id"] for _ in range(3)] == [0, 1, 2]
        assert got == [0, 1, 2]


async def test_node_leaves_no_task_running() -> None:
    before = asyncio.all_tasks()
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        manager.publish("t", 1)
        await client.receive()
    assert asyncio.all_tasks() == before
    assert len(manager._runtime.tasks) == 0


async def test_use_before_start_raises() -> None:
    """Repeated starts and stops are allowed."""
    manager = WebSocketManager("chat", broker_url="memory://")
    with pytest.raises(BrokerClosed):
        await manager.publish("t", 1)
    with pytest.raises(BrokerClosed, match="lifespan"):
        await manager.new_connection(FakeWebSocket(), "x")
    await manager.shutdown()
    await manager.startup()
    await manager.startup()
    await manager.publish("t", 1)
    await manager.shutdown()
    await manager.shutdown()


async def test_unawaited_failed_publish_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with WebSocketManager("chat", broker_url="memory://?max_payload_bytes=10") as manager:
        manager.publish("t", "x" * 100)
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, done.set)
        await done.wait()
    assert "publish to 't' failed" in caplog.text


async def test_failed_background_task_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("boom")

    async def forever() -> None:
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR, logger="dws"):
        await asyncio.wait([tasks.spawn(fail(), name="failing")])
        tasks.spawn(forever(), name="forever")
        with pytest.raises(ExceptionGroup) as group:
            await tasks.stop()
    assert [str(e) for e in group.value.exceptions] == ["boom"]
    assert "'failing' failed" in caplog.text
    assert len(tasks) == 0
    await tasks.stop()


async def test_mounted_application_needs_the_lifespan_of_the_outer_one() -> None:
    """The error names the cause, and its advice works."""
    manager, inner = chat()
    errors: list[str] = []

    @inner.exception_handler(BrokerClosed)
    async def note(_: WebSocket, error: BrokerClosed) -> None:
        errors.append(str(error))

    for lifespan, works in ((None, False), (manager.lifespan, True)):
        outer = FastAPI(lifespan=lifespan)
        outer.mount("/chat", inner)
        async with serve(outer) as server:
            url = f"{server.url}/chat/ws/a"
            if works:
                async with Client.open(url) as client:
                    assert await client.exchange(type="ping") == {"type": "pong"}
            else:
                with pytest.raises(InvalidStatus):
                    async with Client.open(url):
                        pass
    (error,) = errors
    assert "is in a mounted application, whose lifespan does not run" in error
