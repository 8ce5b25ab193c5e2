"""Refusals in the style of FastAPI, by any exception, at each place, before and after accept, on every server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from fastapi.exceptions import RequestValidationError
from starlette.websockets import WebSocketDisconnect
from support.every_server import on_every_server, serve_on
from support.servers import Client, serve
from websockets.exceptions import InvalidStatus

import dws_core.testing
from dws_core import AuthenticationFailed, Connection, WebSocketManager

Raise: TypeAlias = Callable[[], None]


class Banned(Exception):
    """An exception of the application, which has a handler for it."""


class NotPaid(AuthenticationFailed):
    """An error of the application with its own code."""

    close_code = 4402


def raising(*errors: BaseException) -> Raise:
    def fail() -> None:
        raise errors[0]

    return fail


async def in_task_group(error: Exception) -> None:
    async def fail() -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())


def app_that(fail: Raise) -> FastAPI:  # noqa: C901 -- many endpoints
    """Return an application with an endpoint for each place where a handler may fail."""
    manager = WebSocketManager("chat", broker_url="memory://", authorize=lambda *_: True)
    app = FastAPI(lifespan=manager.lifespan)

    @app.exception_handler(Banned)
    async def on_banned(websocket: WebSocket, error: Banned) -> None:
        await websocket.close(4444, str(error))

    @app.websocket("/block")
    async def in_block(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            await connection.receive_json()
            manager.set_conn_id(connection, "last")  # queued
            fail()

    @app.websocket("/group")
    async def in_group(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            await connection.receive_json()
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.receive_json())
                try:
                    fail()
                except Exception as error:  # noqa: BLE001
                    await in_task_group(error)

    async def served(websocket: WebSocket) -> AsyncIterator[Connection]:
        async with manager.connect(websocket) as connection:
            yield connection

    @app.websocket("/yielded")
    async def in_yielded_block(connection: Connection = Depends(served)) -> None:  # noqa: B008
        await connection.receive_json()
        fail()

    @app.websocket("/dependency")
    async def after_dependency(websocket: WebSocket, _: None = Depends(fail)) -> None:
        raise AssertionError("not reached")

    @app.websocket("/endpoint")
    async def in_endpoint(websocket: WebSocket) -> None:
        fail()

    @app.websocket("/accepted")
    async def after_accept(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        fail()

    @app.websocket("/again")
    async def after_block(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            await connection.receive_json()
        fail()

    return app


async def closed_by(url: str) -> tuple[int, str]:
    """Connect, send a message, and return the close frame of the server."""
    async with Client.open(url, close_timeout=0.2) as client:
        await client.send(type="go")
        frame = (await client.wait_closed()).rcvd
        assert frame is not None, "the connection is cut instead of closed"
        return frame.code, frame.reason


def status_of_bug(server: str) -> int:
    """Return the status of a handshake whose endpoint raises. granian answers as if the endpoint had refused it."""
    return 403 if server == "granian" else 500


async def refused_with(url: str) -> int:
    with pytest.raises(InvalidStatus) as refused:
        async with Client.open(url):
            pass
    return refused.value.response.status_code


AFTER_ACCEPT: dict[str, tuple[Raise, int, str]] = {
    "WebSocketException": (raising(WebSocketException(4401, "log in again")), 4401, "log in again"),
    "long reason": (raising(WebSocketException(4401, "é" * 100)), 4401, "é" * 61),
    "AuthenticationFailed": (raising(AuthenticationFailed("expired", fix="log in")), 1008, "expired"),
    "subclass": (raising(NotPaid("pay first")), 4402, "pay first"),
    "InvalidMessage": (raising(dws_core.InvalidMessage("no amount")), 1008, "no amount"),
    "handled": (raising(Banned("banned")), 4444, "banned"),
}
AFTER_ACCEPT_IN_BLOCK: dict[str, tuple[Raise, int, str]] = {
    **AFTER_ACCEPT,
    "unsendable code": (raising(WebSocketException(1005, "x")), 1011, "x"),
    "reason that is no text": (raising(WebSocketException(4401, {"no": "text"})), 4401, "{'no': 'text'}"),  # type: ignore[arg-type]
    "HTTP 403": (raising(HTTPException(403, "not yours")), 1008, "not yours"),
    "HTTP 429": (raising(HTTPException(429)), 1013, "Too Many Requests"),
    "HTTP 500": (raising(HTTPException(500, {"no": "text"})), 1011, "{'no': 'text'}"),
    "validation": (raising(RequestValidationError([])), 1008, "invalid data"),
}


@pytest.fixture
def tracebacks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The exceptions that are logged. Servers replace the handlers of their loggers when they start."""
    texts: list[str] = []

    def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.exc_info:
            texts.append(str(record.exc_info[1]))

    monkeypatch.setattr(logging.Logger, "handle", handle)
    return texts


@on_every_server
async def test_refusal_in_block_closes_with_its_code(server: str, tracebacks: list[str]) -> None:
    for name, (fail, code, reason) in AFTER_ACCEPT_IN_BLOCK.items():
        async with serve_on(server, app_that(fail)) as url:
            for path in ("block", "group", "yielded"):
                assert (path, name, *await closed_by(f"{url}/{path}")) == (path, name, code, reason)
    assert tracebacks == []


@on_every_server
async def test_refusal_after_accept_closes_with_its_code(server: str, tracebacks: list[str]) -> None:
    for name, (fail, code, reason) in AFTER_ACCEPT.items():
        if name != "long reason":  # Starlette does not shorten it
            async with serve_on(server, app_that(fail)) as url:
                assert (name, *await closed_by(f"{url}/accepted")) == (name, code, reason)
    assert tracebacks == []


BEFORE_ACCEPT: dict[str, tuple[Raise, int]] = {
    "WebSocketException": (raising(WebSocketException(4401, "log in again")), 403),
    "AuthenticationFailed": (raising(AuthenticationFailed("expired")), 403),
    "InvalidMessage": (raising(dws_core.InvalidMessage("no")), 403),
    "HTTP 404": (raising(HTTPException(404, "no such room")), 404),
    "handled": (raising(Banned("banned")), 403),
    "bug": (raising(ValueError("a bug")), 500),
}


@on_every_server
async def test_refusal_before_accept_has_a_status(server: str, tracebacks: list[str]) -> None:
    for name, (fail, status) in BEFORE_ACCEPT.items():
        async with serve_on(server, app_that(fail)) as url:
            for path in ("dependency", "endpoint"):
                expected = status_of_bug(server) if status == 500 else status
                assert (path, name, await refused_with(f"{url}/{path}")) == (path, name, expected)
    assert set(tracebacks) <= {"a bug"}


@on_every_server
async def test_refusal_after_the_block_is_no_traceback(server: str, tracebacks: list[str]) -> None:
    """The block has closed the connection already."""
    async with serve_on(server, app_that(raising(WebSocketException(4401)))) as url:
        async with Client.open(f"{url}/again", close_timeout=0.2) as client:
            await client.send(type="go")
            closed = (await client.wait_closed()).rcvd
            assert closed is not None
            assert closed.code == 1000
    assert tracebacks == []


@on_every_server
async def test_bug_in_block_closes_with_1011(server: str, tracebacks: list[str]) -> None:
    for error in (ValueError("a bug"), TimeoutError("a bug"), WebSocketDisconnect(1000, "a bug")):
        async with serve_on(server, app_that(raising(error))) as url:
            assert await closed_by(f"{url}/block") == (1011, "internal error")
    if server not in ("hypercorn", "granian"):
        assert len(tracebacks) == 3, "the server reports a bug"


@on_every_server
async def test_authenticator_may_refuse_like_an_endpoint(server: str, tracebacks: list[str]) -> None:
    errors: list[Exception] = []

    def verify(token: str) -> None:
        raise errors[0]

    manager = WebSocketManager("chat", broker_url="memory://", verify_token=verify)
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/{accepts}")
    async def endpoint(websocket: WebSocket, accepts: bool) -> None:
        if accepts:
            await websocket.accept()
        async with manager.connect(websocket):
            raise AssertionError("not reached")

    token = {"additional_headers": {"Authorization": "Bearer x"}, "close_timeout": 0.2}
    async with serve_on(server, app) as url:
        for error, status, code in (
            (HTTPException(403, "no"), 403, 1008),
            (WebSocketException(4401, "no"), 403, 4401),
            (AuthenticationFailed("no"), 401, 1008),
            (dws_core.BrokerUnavailable("no"), status_of_bug(server), 1011),
        ):
            errors[:] = [error]
            with pytest.raises(InvalidStatus) as refused:
                async with Client.open(f"{url}/false", **token):
                    pass
            assert refused.value.response.status_code == status
            async with Client.open(f"{url}/true", **token) as client:
                closed = (await client.wait_closed()).rcvd
                assert closed is not None
                assert closed.code == code
    assert not [text for text in tracebacks if "unavailable" not in text]


async def test_queued_messages_are_written_before_the_refusal() -> None:
    async with serve(app_that(raising(Banned("out")))) as server, Client.open(f"{server.url}/block") as client:
        await client.send(type="go")
        assert (await client.receive())["type"] == "set_conn_id"
        assert (await client.wait_closed()).rcvd.code == 4444


async def test_block_can_be_closed_without_an_event_loop() -> None:
    """A loop that ends closes the coroutines of unfinished tasks, which must not wait."""
    manager = WebSocketManager("chat", broker_url="memory://")
    socket = dws_core.testing.FakeWebSocket()

    async def handler() -> None:
        async with manager.connect(socket):
            await asyncio.Event().wait()

    async with manager:
        coroutine: Any = handler()
        while not manager.active_connections:
            coroutine.send(None)
            await asyncio.sleep(0)
        coroutine.close()
        assert manager.active_connections == []
