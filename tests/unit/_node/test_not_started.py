"""The error for a manager that is not started names the cause, and its advice works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router, WebSocketRoute
from support.apps import chat_app
from support.servers import Client, serve
from websockets.exceptions import InvalidStatus

from dws_core import BrokerClosed, WebSocketManager
from dws_core._node.not_started import not_started

OWN, MOUNTED, TESTED = "pass FastAPI(lifespan=", "to the outer application", "write `with TestClient(app) as client:`"


@pytest.mark.parametrize(
    ("scope", "present", "absent"),
    [
        (None, (OWN, MOUNTED, TESTED), ()),
        ({"root_path": "", "client": ["127.0.0.1", 1]}, (OWN,), (MOUNTED, TESTED)),
        ({"root_path": "/proxy", "client": None}, (OWN,), (MOUNTED, TESTED)),
        ({"root_path": "/chat", "app_root_path": ""}, (MOUNTED,), (OWN, TESTED)),
        ({"root_path": "/proxy/chat", "app_root_path": "/proxy"}, (MOUNTED,), (OWN, TESTED)),
        ({"root_path": "", "client": ("testclient", 50000)}, (TESTED, OWN), (MOUNTED,)),
        ({"root_path": "/a", "app_root_path": "", "client": ("testclient", 50000)}, (TESTED, MOUNTED), (OWN,)),
    ],
)
def test_advice_fits_the_cause(scope: object, present: tuple[str, ...], absent: tuple[str, ...]) -> None:
    error = not_started(scope)  # type: ignore[arg-type]
    assert error.message.startswith("the node is not started")
    assert [text for text in present if text not in error.fix] == []
    assert [text for text in absent if text in error.fix] == []


@asynccontextmanager
async def _nothing(app: object) -> AsyncIterator[None]:
    yield


def _mounted(manager: WebSocketManager, *, right: bool) -> FastAPI:
    outer = FastAPI(lifespan=manager.lifespan if right else None)
    outer.mount("/chat", chat_app(manager))
    return outer


def _mounted_twice(manager: WebSocketManager, *, right: bool) -> Starlette:
    middle = Starlette(routes=[Mount("/inner", chat_app(manager))], lifespan=manager.lifespan)
    return Starlette(routes=[Mount("/chat", middle)], lifespan=manager.lifespan if right else None)


def _in_own_lifespan(manager: WebSocketManager, *, right: bool) -> FastAPI:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        async with manager:
            yield

    app = chat_app(manager)
    app.router.lifespan_context = own if right else _nothing
    return app


def _routes_of(manager: WebSocketManager) -> APIRouter:
    router = APIRouter()

    @router.websocket("/ws/{conn_id}")
    async def chat(websocket: WebSocket, conn_id: str) -> None:
        async with manager.connect(websocket, conn_id) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    return router


Build = Callable[..., FastAPI | Starlette]
CASES = [
    (_mounted, "/chat/ws/a", MOUNTED),
    (_mounted_twice, "/chat/inner/ws/a", MOUNTED),
    (_in_own_lifespan, "/ws/a", OWN),
]


@pytest.mark.parametrize(("build", "path", "advice"), CASES)
async def test_advice_works_on_a_server(build: Build, path: str, advice: str) -> None:
    errors: list[str] = []
    manager = WebSocketManager("chat", "memory://")
    wrong = build(manager, right=False)

    async def noted(scope: object, receive: object, send: object) -> None:
        try:
            await wrong(scope, receive, send)  # type: ignore[arg-type]
        except BrokerClosed as error:
            errors.append(error.fix)
            raise

    async with serve(noted) as server:  # type: ignore[arg-type]
        with pytest.raises(InvalidStatus):
            async with Client.open(server.url + path):
                pass
    assert [advice in error for error in errors] == [True]
    async with serve(build(manager, right=True)) as server, Client.open(server.url + path) as client:
        assert await client.exchange(type="ping") == {"type": "pong"}


@pytest.mark.parametrize(("build", "path", "advice"), CASES)
def test_test_client_needs_a_block(build: Build, path: str, advice: str) -> None:
    manager = WebSocketManager("chat", "memory://")
    with pytest.raises(BrokerClosed) as caught, TestClient(build(manager, right=True)).websocket_connect(path):
        pass
    assert TESTED in caught.value.fix
    with TestClient(build(manager, right=True)) as client, client.websocket_connect(path) as socket:
        socket.send_json({"type": "ping"})
        assert socket.receive_json() == {"type": "pong"}


def test_publish_without_a_block_names_the_test_client() -> None:
    client = TestClient(chat_app(WebSocketManager("chat", "memory://")))
    with pytest.raises(BrokerClosed, match="In tests, write `with TestClient"):
        client.post("/announce", params={"text": "x"})


def test_lifespan_of_a_router_starts_the_node() -> None:
    manager = WebSocketManager("chat", "memory://")
    app, router = FastAPI(), APIRouter(lifespan=manager.lifespan)
    router.include_router(_routes_of(manager))
    app.include_router(router)
    with TestClient(app) as client, client.websocket_connect("/ws/a") as socket:
        socket.send_json({"type": "ping"})
        assert socket.receive_json() == {"type": "pong"}


def test_router_of_starlette_behind_a_host_gets_the_general_advice() -> None:
    """Starlette runs no lifespan of it either, but nothing in the scope tells that it is mounted."""
    manager = WebSocketManager("chat", "memory://")

    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket):
            pass

    app = Starlette(routes=[Host("testserver", Router([WebSocketRoute("/ws", endpoint)], lifespan=manager.lifespan))])
    with TestClient(app) as client, pytest.raises(BrokerClosed) as caught, client.websocket_connect("/ws"):
        pass
    assert OWN in caught.value.fix
