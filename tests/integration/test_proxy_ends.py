"""Ends of a proxied connection: either side closes, the server stops, or the endpoint is cancelled."""

from __future__ import annotations

import asyncio

import pytest
from support.proxies import (
    Gateway,
    Upstream,
    behind_gateway,
    bound_socket,
    closed_with,
    flood,
    gateway_to,
    open_client,
    url_of,
)
from support.servers import serve
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from dws_core import WebSocketProxy


@pytest.mark.parametrize(("sent", "seen"), [(1000, 1000), (1001, 1001), (1011, 1011), (3000, 3000), (4999, 4999)])
async def test_client_close_code_reaches_upstream(sent: int, seen: int) -> None:
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front):
        async with open_client(url) as client:
            await client.close(sent, "reason ✓")
        assert await upstream.close() == Close(seen, "reason ✓")
        await front.wait_ended()


@pytest.mark.parametrize("code", [1000, 1008, 1012, 1013, 4001, 4503])
@pytest.mark.parametrize("accept", [True, False])
async def test_upstream_close_code_reaches_client(accept: bool, code: int) -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close(code, "z" * 120 + "✓")

    async with behind_gateway(leave, gateway={"accept": accept}) as (url, front), open_client(url) as client:
        assert await closed_with(client) == Close(code, "z" * 120 + "✓")
        await front.wait_ended()


async def test_client_close_without_code_is_1000_for_upstream() -> None:
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front), open_client(url) as client:
        async with client.send_context():
            client.protocol.send_close()
        assert await upstream.close() == Close(1000, "")
        await front.wait_ended()


async def test_upstream_close_without_code_is_1000_for_client() -> None:
    async def leave(socket: ServerConnection) -> None:
        async with socket.send_context():
            socket.protocol.send_close()

    async with behind_gateway(leave) as (url, front), open_client(url) as client:
        assert await closed_with(client) == Close(1000, "")
        await front.wait_ended()


async def test_lost_client_is_1001_for_upstream() -> None:
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front):
        client = await open_client(url)
        client.transport.abort()
        assert await upstream.close() == Close(1001, "the client's connection was lost")
        await front.wait_ended()
        await client.wait_closed()


async def test_lost_upstream_is_1014_for_client() -> None:
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front), open_client(url) as client:
        (await upstream.connection()).transport.abort()
        assert await closed_with(client) == Close(1014, "the upstream connection was lost")
        await front.wait_ended()


async def test_both_sides_may_be_lost_at_once() -> None:
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front):
        client = await open_client(url)
        server = await upstream.connection()
        client.transport.abort()
        server.transport.abort()
        await front.wait_ended()
        await client.wait_closed()
    assert front.failure is None


async def test_lost_client_is_noticed_during_upstream_flood() -> None:
    upstream = Upstream(flood)
    async with behind_gateway(upstream) as (url, front):
        client = await open_client(url)
        await client.recv()
        client.transport.abort()
        assert (await upstream.close() or Close(0, "")).code == 1001
        await front.wait_ended()
        await client.wait_closed()
    assert front.failure is None


async def test_lost_upstream_is_noticed_during_client_flood() -> None:
    async def vanish(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    async with behind_gateway(vanish) as (url, front), open_client(url) as client:
        with pytest.raises(ConnectionClosed):
            await flood(client)
        assert (client.close_code, client.close_reason) == (1014, "the upstream connection was lost")
        await front.wait_ended()
    assert front.failure is None


async def test_upstream_without_pongs_is_lost() -> None:
    release = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await release.wait()
        socket.transport.abort()

    async with behind_gateway(deaf, gateway={"ping_interval_s": 0.1, "close_timeout_s": 0.2}) as (url, front):
        async with open_client(url) as client:
            assert await closed_with(client) == Close(1014, "the upstream connection was lost")
            await front.wait_ended()
            release.set()


async def test_server_stop_closes_both_sides_with_1012() -> None:
    upstream = Upstream()
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        front = Gateway(url_of(server))
        async with serve(front.app) as running, open_client(f"{running.url}/ws") as client:
            await upstream.connection()
            running.should_exit = True
            assert (await closed_with(client)).code == 1012
            assert (await upstream.close() or Close(0, "")).code == 1012
            await front.wait_ended()
    assert front.failure is None


async def test_server_stops_while_both_sides_are_stalled() -> None:
    """The client reads nothing, so even a close frame cannot be written."""

    upstream = Upstream(flood)
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        front = Gateway(url_of(server), close_timeout_s=0.2)
        async with serve(front.app, timeout_graceful_shutdown=2) as running:
            client = await open_client(f"{running.url}/ws")
            running.should_exit = True
            await front.wait_ended()
            assert (await upstream.close() or Close(0, "")).code == 1012
            client.transport.abort()
            await client.wait_closed()
    assert front.failure is None


async def test_cancelled_endpoint_closes_both_sides() -> None:
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front), open_client(url) as client:
        await upstream.connection()
        assert front.task is not None
        front.task.cancel()
        assert (await closed_with(client)).code == 1001
        assert await upstream.close() == Close(1001, "")
        await front.wait_ended()
    assert isinstance(front.failure, asyncio.CancelledError)


async def test_second_cancellation_does_not_wait_for_upstream() -> None:
    release = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await release.wait()
        socket.transport.abort()

    async with behind_gateway(deaf, gateway={"close_timeout_s": 60.0}) as (url, front), open_client(url) as client:
        assert front.task is not None
        front.task.cancel()
        await closed_with(client)  # the close is in progress, and the upstream does not answer
        front.task.cancel()
        await front.wait_ended()
        release.set()
    assert isinstance(front.failure, asyncio.CancelledError)


async def test_cancellation_during_upstream_handshake_ends_both() -> None:
    with bound_socket(listening=True) as endpoint:
        async with gateway_to(endpoint, accept=True) as (url, front):
            async with open_client(url) as client:
                assert front.task is not None
                front.task.cancel()
                await front.wait_ended()
                await client.wait_closed()
    assert isinstance(front.failure, asyncio.CancelledError)


async def test_pump_failure_closes_both_sides_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(WebSocketProxy, "_pump_to_client", broken)
    upstream = Upstream()
    async with behind_gateway(upstream) as (url, front), open_client(url) as client:
        assert await closed_with(client) == Close(1011, "the proxy failed")
        assert (await upstream.close() or Close(0, "")).code == 1011
        await front.wait_ended()
    assert isinstance(front.failure, ExceptionGroup)
