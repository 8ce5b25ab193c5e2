"""Limits per user and per address, and the counters of refused clients."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.servers import HANG_S, Client, Server, serve
from websockets.exceptions import InvalidStatus

from dws_core import Limits, Principal, WebSocketManager
from dws_core._auth import refusal


def verify(token: str) -> Principal | None:
    return None if token == "wrong" else Principal(id=token)


def node(accept_first: bool = False, **limits: int) -> tuple[WebSocketManager, FastAPI]:
    manager = WebSocketManager("c", broker_url="memory://", verify_token=verify, limits=Limits(**limits))
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, conn_id: str | None = None) -> None:
        if accept_first:
            await websocket.accept()
        async with manager.connect(websocket, conn_id) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    return manager, app


def as_user(user: str, **more: Any) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {user}"}, **more}


async def status_of(server: Server, user: str, **options: Any) -> int:
    """Return the status of a handshake, 101 if it was accepted."""
    try:
        async with Client.open(f"{server.url}/ws", **as_user(user, **options)) as client:
            await client.exchange(type="ping")
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def status_when_closed(server: Server, user: str) -> int:
    """Connect until the node has noticed that earlier connections are closed."""
    async with asyncio.timeout(HANG_S):
        while (status := await status_of(server, user)) == 429:
            pass
    return status


async def test_connections_of_one_user_are_limited() -> None:
    manager, app = node(connections_per_user=2)
    async with serve(app) as server:
        async with AsyncExitStack() as stack:
            for conn_id in ("phone", "laptop"):
                url = f"{server.url}/ws?conn_id={conn_id}"
                await stack.enter_async_context(Client.open(url, **as_user("ann")))
            assert await status_of(server, "ann") == 429
            assert await status_of(server, "bo") == 101
        assert manager.stats().refused == {"user": 1}
        assert await status_when_closed(server, "ann") == 101
    assert len(manager._admission._users) == 0


async def test_concurrent_handshakes_do_not_pass_the_limit() -> None:
    _, app = node(connections_per_user=2)
    async with serve(app) as server, AsyncExitStack() as stack:

        async def open_one() -> int:
            try:
                await stack.enter_async_context(Client.open(f"{server.url}/ws", **as_user("ann")))
            except InvalidStatus as refused:
                return refused.response.status_code
            return 101

        assert sorted(await asyncio.gather(*(open_one() for _ in range(12)))) == [101] * 2 + [429] * 10


async def test_connections_of_one_address_are_limited() -> None:
    """Refused handshakes make room again."""
    manager, app = node(connections_per_address=1)
    async with serve(app) as server:
        assert [await status_of(server, "wrong") for _ in range(3)] == [401, 401, 401]
        async with Client.open(f"{server.url}/ws", **as_user("ann")) as client:
            await client.exchange(type="ping")
            assert await status_of(server, "bo") == 429
        assert manager.stats().refused == {"credentials": 3, "address": 1}
        assert await status_when_closed(server, "bo") == 101
    assert len(manager._admission._addresses) == 0


async def test_accepted_socket_over_limit_is_closed_with_1013() -> None:
    _, app = node(accept_first=True, connections_per_user=1)
    async with serve(app) as server, Client.open(f"{server.url}/ws", **as_user("ann")) as client:
        await client.exchange(type="ping")
        async with Client.open(f"{server.url}/ws", **as_user("ann")) as second:
            assert (await second.wait_closed()).rcvd.code == 1013


async def test_refusals_are_counted_by_reason() -> None:
    manager, app = node(connections=1)
    async with serve(app) as server:
        await status_of(server, "wrong")
        await status_of(server, "ann", origin="https://evil.example")
        await status_of(server, "ann", subprotocols=["unknown"])
        async with Client.open(f"{server.url}/ws", **as_user("ann")):
            await status_of(server, "ann")
        assert manager.stats().refused == {"credentials": 1, "origin": 1, "malformed": 1, "full": 1}


async def test_limit_refusals_are_logged_once_per_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal, "_busy_allowances", {})
    caplog.set_level(logging.INFO, logger="dws")
    manager, app = node(connections_per_user=1)
    async with serve(app) as server, Client.open(f"{server.url}/ws", **as_user("ann")):
        for _ in range(4):
            assert await status_of(server, "ann") == 429
    lines = [record.getMessage() for record in caplog.records if "refused the client" in record.getMessage()]
    assert len(lines) == 1
    assert "a user may have 1 connections to this node; logged at most once per minute" in lines[0]
    assert manager.stats().refused == {"user": 4}


async def test_without_limits_nothing_is_counted() -> None:
    manager, app = node()
    async with serve(app) as server, Client.open(f"{server.url}/ws", **as_user("ann")) as client:
        await client.exchange(type="ping")
        assert (len(manager._admission._users), len(manager._admission._addresses)) == (0, 0)
