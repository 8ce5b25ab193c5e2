"""The close frames that applications send: their codes and reasons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from support.apps import chat
from support.servers import Client, serve

from dws_core import ConfigurationError, Connection, WebSocketManager

Close: TypeAlias = Callable[[WebSocketManager, Connection, int, str], Awaitable[None]]


async def close(_: WebSocketManager, connection: Connection, code: int, reason: str) -> None:
    await connection.close(code, reason)


async def disconnect(_: WebSocketManager, connection: Connection, code: int, reason: str) -> None:
    connection.disconnect(code, reason)


async def close_connection(manager: WebSocketManager, connection: Connection, code: int, reason: str) -> None:
    await manager.close_connection(connection, code, reason)


WAYS = pytest.mark.parametrize("way", [close, disconnect, close_connection], ids=lambda way: way.__name__)


@WAYS
@pytest.mark.parametrize("ws", ["auto", "websockets-sansio"])
@pytest.mark.parametrize(
    ("reason", "expected"),
    [("x" * 123, "x" * 123), ("x" * 124, "x" * 123), ("banned: " + "é" * 70, "banned: " + "é" * 57), ("\ud800", "?")],
    ids=["fits", "long", "inside a character", "surrogate"],
)
async def test_long_reason_is_cut_at_a_character(way: Close, ws: str, reason: str, expected: str) -> None:
    manager, app = chat()
    async with serve(app, ws=ws) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.exchange(type="ping")
        await way(manager, manager.active_connections[0], 4600, reason)
        closed = (await client.wait_closed()).rcvd
        assert closed is not None
        assert (closed.code, closed.reason) == (4600, expected)


@WAYS
@pytest.mark.parametrize("code", [999, 1005, 1006, 1015, 2000, 5000, "4600", None])
async def test_code_that_may_not_be_sent_changes_nothing(way: Close, code: Any) -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.exchange(type="ping")
        with pytest.raises(ConfigurationError, match="may not be sent"):
            await way(manager, manager.active_connections[0], code, "out")
        assert await client.exchange(type="ping") == {"type": "pong"}
        assert len(manager) == 1
