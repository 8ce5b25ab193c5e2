"""The proxy between real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.servers import HANG_S, Client, serve
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_upstream
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dws_core import ConfigurationError, WebSocketProxy


def _gateway(endpoint: str, *, accept: bool = False, **options: Any) -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def proxy(websocket: WebSocket) -> None:
        if accept:
            await websocket.accept()
        await WebSocketProxy(websocket, endpoint, **options)()

    return app


def _address(server: Any) -> str:
    return f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


async def _echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@pytest.mark.parametrize("accept", [True, False])
async def test_text_and_binary_pass_both_ways_in_order(accept: bool) -> None:
    async with (
        serve_upstream(_echo, "127.0.0.1", 0) as upstream,
        serve(_gateway(_address(upstream), accept=accept)) as front,
    ):
        async with connect(f"{front.url}/ws", proxy=None) as client:
            sent: list[str | bytes] = ["a", b"b", "", b"", "é" * 100_000, bytes(200_000)]
            for message in sent:
                await client.send(message)
            assert [await client.recv() for _ in sent] == sent


async def test_the_upstreams_subprotocol_becomes_the_clients() -> None:
    async with serve_upstream(_echo, "127.0.0.1", 0, subprotocols=["b"]) as upstream:  # type: ignore[list-item]
        async with serve(_gateway(_address(upstream))) as front:
            async with connect(f"{front.url}/ws", proxy=None, subprotocols=["a", "b"]) as client:  # type: ignore[list-item]
                assert client.subprotocol == "b"


async def test_a_close_passes_from_client_to_upstream_with_code_and_reason() -> None:
    closed: asyncio.Future[ConnectionClosed] = asyncio.get_running_loop().create_future()

    async def upstream_handler(socket: ServerConnection) -> None:
        try:
            await socket.recv()
        except ConnectionClosed as error:
            closed.set_result(error)

    async with (
        serve_upstream(upstream_handler, "127.0.0.1", 0) as upstream,
        serve(_gateway(_address(upstream))) as front,
    ):
        async with connect(f"{front.url}/ws", proxy=None) as client:
            await client.close(4321, "bye")
        error = await asyncio.wait_for(closed, HANG_S)
    assert error.rcvd is not None
    assert (error.rcvd.code, error.rcvd.reason) == (4321, "bye")


async def test_a_close_passes_from_upstream_to_client_with_code_and_reason() -> None:
    async def upstream_handler(socket: ServerConnection) -> None:
        await socket.close(4002, "token expired")

    async with (
        serve_upstream(upstream_handler, "127.0.0.1", 0) as upstream,
        serve(_gateway(_address(upstream))) as front,
    ):
        async with Client.open(f"{front.url}/ws") as client:
            closed = (await client.closed()).rcvd
    assert closed is not None
    assert (closed.code, closed.reason) == (4002, "token expired")


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_whichever_side_vanishes_no_task_is_left(side: str) -> None:
    before = asyncio.all_tasks()
    ended = asyncio.Event()

    async def upstream_handler(socket: ServerConnection) -> None:
        if side == "upstream":
            socket.transport.abort()
        await socket.wait_closed()
        ended.set()

    async with (
        serve_upstream(upstream_handler, "127.0.0.1", 0) as upstream,
        serve(_gateway(_address(upstream))) as front,
    ):
        async with Client.open(f"{front.url}/ws") as client:
            if side == "client":
                client.socket.transport.abort()
            else:
                closed = await client.closed()
                assert closed.rcvd is not None
                assert closed.rcvd.code == 1014
            await asyncio.wait_for(ended.wait(), HANG_S)
    assert asyncio.all_tasks() == before


async def test_an_upstream_that_is_down_is_refused_without_naming_it() -> None:
    async with serve(_gateway("ws://127.0.0.1:1/secret-path")) as front:
        with pytest.raises(InvalidStatus) as refused:
            async with Client.open(f"{front.url}/ws"):
                pass
    assert refused.value.response.status_code in {502, 503}
    assert b"secret-path" not in refused.value.response.body


async def test_an_upstream_that_is_down_closes_an_accepted_client() -> None:
    async with serve(_gateway("ws://127.0.0.1:1/", accept=True)) as front, Client.open(f"{front.url}/ws") as client:
        closed = (await client.closed()).rcvd
    assert closed is not None
    assert closed.code in {1013, 1014}


async def test_an_upstream_that_never_answers_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with listener, serve(_gateway(_address(listener), connect_timeout_s=0.1)) as front:
        with pytest.raises(InvalidStatus) as refused:
            async with Client.open(f"{front.url}/ws"):
                pass
    assert refused.value.response.status_code == 504


async def test_a_server_with_an_open_proxy_stops() -> None:
    async with serve_upstream(_echo, "127.0.0.1", 0) as upstream, serve(_gateway(_address(upstream))) as front:
        async with connect(f"{front.url}/ws", proxy=None) as client:
            await client.send("x")
            await client.recv()
            front.should_exit = True
            await asyncio.wait_for(client.wait_closed(), HANG_S)


def test_an_endpoint_that_is_no_websocket_url_is_refused_at_once() -> None:
    for wrong in ("http://h/", "nonsense", "ws://"):
        with pytest.raises(ConfigurationError, match="Fix"):
            WebSocketProxy(None, wrong)  # type: ignore[arg-type]
