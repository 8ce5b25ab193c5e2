"""Upstreams that are unavailable or reject the connection."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.proxies import (
    Gateway,
    Upstream,
    behind_gateway,
    bound_socket,
    closed_with,
    echo,
    gateway_to,
    open_client,
    refused_handshake,
    url_of,
)
from support.servers import HANG_S, serve
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.frames import Close
from websockets.http11 import Request, Response

from dws_core import AuthenticationFailed, WebSocketProxy
from dws_core.client import Client as DwsClient


def _status(status: HTTPStatus, **headers: str) -> Callable[[ServerConnection, Request], Response]:
    def answer(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(status, "internal detail")
        response.headers.update(headers)
        return response

    return answer


async def test_unreachable_upstream_is_502_or_1014(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The status is 502 before the accept, the close code is 1014 after it. The log hides the URL's secrets."""
    with bound_socket(listening=False) as endpoint, caplog.at_level(logging.WARNING, "dws.proxy"):
        async with gateway_to(endpoint.replace("//", "//u:hush@") + "?token=hush") as (url, front):
            denied = await refused_handshake(url)
            await front.wait_ended()
        async with gateway_to(endpoint, accept=True) as (url, front), open_client(url) as client:
            closed = await closed_with(client)
            await front.wait_ended()
    assert denied.status_code == 502
    assert denied.body == b"the upstream cannot be reached"
    assert closed == Close(1014, "the upstream cannot be reached")
    assert "secret" in caplog.text, "the log names the upstream"
    assert "hush" not in caplog.text, "but not what is secret in its URL"


async def test_slow_upstream_handshake_is_504_or_1013() -> None:
    """The status is 504 before the accept, the close code is 1013 after it."""
    with bound_socket(listening=True) as endpoint:
        async with gateway_to(endpoint, connect_timeout_s=0.1) as (url, front):
            denied = await refused_handshake(url)
            await front.wait_ended()
        async with gateway_to(endpoint, connect_timeout_s=0.1, accept=True) as (url, front), open_client(url) as client:
            closed = await closed_with(client)
            await front.wait_ended()
    assert denied.status_code == 504
    assert closed == Close(1013, "the upstream did not reply in time")


async def test_unknown_host_is_502(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> object:
        raise sockets.gaierror(sockets.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with gateway_to("ws://upstream.invalid/") as (url, _):
        denied = await refused_handshake(url)
    assert denied.status_code == 502
    assert b"invalid" not in denied.body


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1008), (401, 1008), (403, 1008), (404, 1008), (410, 1008), (429, 1013), (503, 1013)],
)
async def test_refusal_of_upstream_is_that_of_gateway(status: int, code: int) -> None:
    """The status is the same before the accept. After it, the code is final if the status is."""
    answer = _status(HTTPStatus(status), **{"WWW-Authenticate": "Bearer", "Retry-After": "7"})
    async with behind_gateway(echo, process_request=answer) as (url, _):
        denied = await refused_handshake(url)
    assert (denied.status_code, denied.headers["www-authenticate"], denied.headers["retry-after"]) == (
        status,
        "Bearer",
        "7",
    )
    assert denied.body == f"the upstream refused the connection (HTTP {status})".encode()
    async with behind_gateway(echo, gateway={"accept": True}, process_request=answer) as (url, front):
        async with open_client(url) as client:
            assert await closed_with(client) == Close(code, f"the upstream refused the connection (HTTP {status})")
        await front.wait_ended()


@pytest.mark.parametrize("status", [200, 407, 421, 500])
async def test_status_about_upstream_is_502(status: int) -> None:
    async with behind_gateway(echo, process_request=_status(HTTPStatus(status))) as (url, _):
        denied = await refused_handshake(url)
    assert denied.status_code == 502
    assert denied.body == f"the upstream refused the connection (HTTP {status})".encode()


async def test_refused_token_ends_the_client_behind_a_gateway() -> None:
    async with behind_gateway(echo, process_request=_status(HTTPStatus.UNAUTHORIZED)) as (url, _):
        with pytest.raises(AuthenticationFailed):
            async with DwsClient(url, token="bad", connect_timeout_s=HANG_S, proxy=False):
                pass


async def test_redirect_is_not_followed() -> None:
    elsewhere = Upstream()
    async with serve_websockets(elsewhere, "127.0.0.1", 0) as target:
        answer = _status(HTTPStatus.FOUND, Location=url_of(target))
        async with behind_gateway(echo, process_request=answer) as (url, _):
            assert (await refused_handshake(url)).status_code == 502
    assert not elsewhere.connected.done()


async def test_upstream_without_http_is_502() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        async with gateway_to(f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/") as (url, _):
            denied = await refused_handshake(url)
    assert denied.status_code == 502
    assert denied.body == b"the upstream's answer is not a WebSocket handshake"


async def test_refusal_is_403_without_denial_responses() -> None:
    with bound_socket(listening=False) as endpoint:
        front = Gateway(endpoint)

        async def without(scope: Any, receive: Any, send: Any) -> None:
            scope.pop("extensions", None)
            await front.app(scope, receive, send)

        async with serve(without) as running:
            assert (await refused_handshake(f"{running.url}/ws")).status_code == 403
            await front.wait_ended()
    assert front.failure is None


async def test_client_leaving_during_upstream_handshake_is_noticed() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hesitate(_: ServerConnection, __: Request) -> None:
        asked.set()
        await answer.wait()

    upstream = Upstream()
    async with behind_gateway(upstream, process_request=hesitate) as (url, front):
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(_opened(url))
            await asked.wait()
            opening.cancel()
        answer.set()
        assert (await upstream.close() or Close(0, "")).code == 1001
        await front.wait_ended()
    assert front.failure is None


async def _opened(url: str) -> ClientConnection:
    return await open_client(url)


async def test_disconnected_client_opens_no_upstream_connection() -> None:
    upstream = Upstream()
    ended = asyncio.Event()
    app = FastAPI()

    async with serve_websockets(upstream, "127.0.0.1", 0) as server:

        @app.websocket("/ws")
        async def late(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.receive()  # the disconnect
            await WebSocketProxy(websocket, url_of(server))()
            ended.set()

        async with serve(app) as running, open_client(f"{running.url}/ws") as client:
            await client.close()
            async with asyncio.timeout(HANG_S):
                await ended.wait()
    assert not upstream.connected.done()
