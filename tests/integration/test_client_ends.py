"""Limits of the Python client: slow consumers, closing, and unavailable nodes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest
from support.clients import Gaps, client, receive_data
from support.scripted import ScriptedConnection, scripted
from support.servers import HANG_S
from websockets.exceptions import ConnectionClosed as SocketClosed

from dws_core import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionClosed,
    InvalidMessage,
    WebSocketException,
)
from dws_core.client import Gap, Subscription

# -- slow consumers


async def test_full_queue_stops_reading_and_loses_nothing() -> None:
    total = 3_000

    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        for n in range(1, total + 1):
            await peer.message(n, n)

    async with scripted(node) as url:
        gaps = Gaps()
        alice = client(url, queue_messages=10, on_gap=gaps)
        messages = alice.subscribe("t")
        async with alice:
            assert await receive_data(messages, 1) == [1]
            assert int((alice.cursor or "").split(":")[2]) < 50
            assert await receive_data(messages, total - 1) == list(range(2, total + 1))
        assert gaps == []


async def test_client_that_replies_does_not_block_itself() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        for n in range(1, 31):
            await peer.message(n, n)
        for _ in range(30):
            frame = await peer.receive("send")
            await peer.send(type="ack", id=frame["id"])

    async with scripted(node) as url:
        alice = client(url, queue_messages=5)
        messages = alice.subscribe("t")
        async with alice, asyncio.timeout(HANG_S):
            for n in range(1, 31):
                assert (await anext(messages)).data == n
                await alice.publish("reply", n)


async def test_overflow_while_waiting_for_reply_is_gap() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        frame = await peer.receive("send")
        for n in range(1, 41):
            await peer.message(n, n)
        await peer.send(type="ack", id=frame["id"])

    gaps = Gaps()
    async with scripted(node) as url:
        alice = client(url, queue_messages=3, on_gap=gaps)
        messages = alice.subscribe("t")
        async with alice:
            await alice.publish("reply", 1)
            assert gaps == [Gap(filters=("t",), reason="overflow")], "told once"
            assert await receive_data(messages, 30) == list(range(1, 31))


# -- closing and failing


async def test_close_ends_iterations_and_pending_calls() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        await peer.receive("send")
        asked.set()
        assert await peer.wait_closed() == 1000

    asked = asyncio.Event()
    async with scripted(node) as url:
        alice = client(url)
        messages = alice.subscribe("t")
        async with asyncio.TaskGroup() as group:
            async with alice:
                publishing = group.create_task(_error_of(alice.publish("t", 1)))
                reading = group.create_task(_all(messages))
                await asyncio.wait_for(asked.wait(), HANG_S)
            await alice.aclose()
        assert isinstance(publishing.result(), ConnectionClosed)
        assert reading.result() == []
        with pytest.raises(ConnectionClosed):
            alice.inbox()


async def test_close_does_not_wait_for_unread_messages() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        with suppress(SocketClosed):
            for n in range(1, 3_001):
                await peer.message(n, n)
        assert await peer.wait_closed() == 1000

    async with scripted(node) as url:
        alice = client(url, queue_messages=1, connect_timeout_s=1_000)
        messages = alice.subscribe("t")
        async with asyncio.timeout(HANG_S), alice:
            assert await receive_data(messages, 1) == [1]


async def test_first_connection_times_out() -> None:
    async with scripted() as url:
        pass
    with pytest.raises(ConnectionClosed, match="no connection within"):
        async with client(url, connect_timeout_s=0.2):
            pass


async def test_failing_token_function_is_retried() -> None:
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("the token service is away")
        return "t"

    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()

    async with scripted(node) as url, client(url, token=token):
        assert len(asked) == 3


async def test_invalid_arguments_raise_at_once() -> None:
    with pytest.raises(ConfigurationError, match="no installed plugin offers codec 'xml'"):
        client("ws://localhost", codec="xml")
    with pytest.raises(InvalidMessage, match="cursor is malformed"):
        client("ws://localhost", cursor="x")
    with pytest.raises(ConfigurationError, match="the URL of the node is not valid: scheme isn't"):
        async with client("http://localhost"):
            pass


async def _error_of(awaitable: Any) -> BaseException | None:
    try:
        await awaitable
    except (ConnectionClosed, WebSocketException) as error:
        return error
    return None


async def _all(subscription: Subscription) -> list[Any]:
    return [message.data async for message in subscription]


# -- connections through intermediaries, and first connections


async def test_connected_client_survives_http_answers() -> None:
    """A captive portal and a load balancer answer reconnects. Afterwards the client resumes."""

    async def before(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        await peer.message(1, 1)
        await peer.socket.close(1012)

    async def after(peer: ScriptedConnection) -> None:
        data = await peer.accept_connect()
        assert data["cursor"] == "0:e:1"
        await peer.message(2, 2)

    async with scripted(before, 200, 403, 404, 502, after) as url:
        alice = client(url)
        messages = alice.subscribe("t")
        async with alice:
            assert await receive_data(messages, 2) == [1, 2]


async def test_failed_first_connection_names_its_cause() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionClosed, match=f"last failure: .*cannot connect to 127.0.0.1:{port}"):
        async with client(f"ws://127.0.0.1:{port}/ws", connect_timeout_s=0.2):
            pass
    with pytest.raises(ConnectionClosed, match=f"cannot connect to 127.0.0.1:{port}"):
        async with client(f"ws://127.0.0.1:{port}/ws", retry_first=False):
            pass


@pytest.mark.parametrize("allowed", [(), ("localhost",)], ids=["refused", "allowed"])
async def test_redirect_to_other_host_needs_permission(allowed: tuple[str, ...]) -> None:
    """The token and the header fields would be sent to that host."""
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, response: bytes) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(response)
        await writer.drain()
        writer.close()

    forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    other = await asyncio.start_server(lambda r, w: answer(r, w, forbidden), "127.0.0.1", 0)
    location = f"ws://localhost:{other.sockets[0].getsockname()[1]}/x"
    redirect = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    node = await asyncio.start_server(lambda r, w: answer(r, w, redirect), "127.0.0.1", 0)
    async with node, other:
        url = f"ws://127.0.0.1:{node.sockets[0].getsockname()[1]}"
        expected = AuthenticationFailed if allowed else WebSocketException
        with pytest.raises(expected, match="HTTP 403" if allowed else "HTTP 302.*allowed_redirects"):
            async with client(url, token="secret", headers={"X-Api-Key": "key"}, allowed_redirects=allowed):
                pass
    assert len(heads) == (2 if allowed else 1)
