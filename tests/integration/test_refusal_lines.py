"""Every way to refuse a handshake logs exactly one line, with the reason, the origin and the host."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from support.servers import HANG_S, Client, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dws_core import (
    AuthenticationFailed,
    Handshake,
    InvalidFilter,
    Limits,
    Principal,
    WebSocketManager,
    WebSocketOAuth2PasswordBearer,
    WebSocketProxy,
)
from dws_core._auth import refusal
from dws_core._limits.token_bucket import TokenBucket
from dws_core.testing import FakeWebSocket

ORIGIN = "https://page.example"


class Raises:
    """An authenticator that raises an exception, or returns a principal."""

    def __init__(self, outcome: Exception | Principal) -> None:
        self._outcome = outcome

    async def authenticate(self, handshake: Handshake) -> Principal:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class Hangs:
    """An authenticator that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def authenticate(self, handshake: Handshake) -> Principal:
        self.asked.set()
        await self.may_answer.wait()
        return Principal(id="a")


@pytest.fixture(autouse=True)
def _no_earlier_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "_lines", refusal._Lines())
    monkeypatch.setattr(refusal, "_busy_allowances", {})


def _app(manager: WebSocketManager, *, accepts: bool = False, started: bool = True, **connect: Any) -> FastAPI:
    app = FastAPI(lifespan=manager.lifespan if started else None)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        if accepts:
            await websocket.accept()
        async with manager.connect(websocket, **connect) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    return app


def _node(**arguments: Any) -> WebSocketManager:
    return WebSocketManager("c", "memory://", **{"allowed_origins": [ORIGIN], **arguments})


def _authenticated(outcome: Exception | Principal) -> Callable[[], FastAPI]:
    return lambda: _app(_node(authenticator=Raises(outcome)))


def _bearer() -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, token: str = Depends(WebSocketOAuth2PasswordBearer("/token"))) -> None:
        raise AssertionError

    return app


def _raising(error: Exception, *, accepts: bool = False, depends: bool = False) -> Callable[[], FastAPI]:
    """Return an application whose endpoint or dependency refuses clients before it calls `connect`."""

    async def refuse(websocket: WebSocket) -> None:
        if accepts:
            await websocket.accept()
        raise error

    def build() -> FastAPI:
        app = FastAPI(lifespan=_node().lifespan)
        if depends:
            app.websocket("/ws", dependencies=[Depends(refuse)])(_unreachable)
        else:
            app.websocket("/ws")(refuse)
        return app

    return build


async def _unreachable(websocket: WebSocket) -> None:
    raise AssertionError


def _in_block() -> FastAPI:
    manager = _node()
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket):
            raise AuthenticationFailed("no member")

    return app


def _proxy() -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await WebSocketProxy(websocket, "ws://no-such-host.invalid/ws")()

    return app


WAYS: dict[str, tuple[Callable[[], FastAPI], dict[str, Any], str]] = {
    "origin": (lambda: _app(_node(allowed_origins=[])), {}, "this origin is not allowed"),
    "subprotocol": (lambda: _app(_node()), {"subprotocols": ["other"]}, "none of the offered subprotocols is known"),
    "only a secret": (lambda: _app(_node()), {"subprotocols": ["dws.bearer.eA"]}, "needs a codec subprotocol"),
    "authenticator": (_authenticated(AuthenticationFailed("wrong key")), {}, "wrong key"),
    "expired": (_authenticated(Principal(id="a", expires_at=time.time() - 1)), {}, "the credentials have expired"),
    "id of the principal": (_authenticated(Principal(id="")), {}, "the id of the principal"),
    "HTTPException": (_authenticated(HTTPException(402, "pay first")), {}, "HTTP 402, pay first"),
    "WebSocketException": (_authenticated(WebSocketException(4001, "later")), {}, "close code 4001, later"),
    "any exception": (_authenticated(KeyError("hunter2")), {}, "failed with KeyError"),
    "connection id": (lambda: _app(_node(), conn_id="x" * 257), {}, "a connection id must be"),
    "filter": (lambda: _app(_node(), topic="a/#/b"), {}, "filter 'a/#/b' is invalid"),
    "limit of connections": (lambda: _app(_node(limits=Limits(connections=1))), {"clients": 2}, "its limit of 1"),
    "time": (lambda: _app(_node(authenticator=Hangs(), limits=Limits(handshake_s=0.05))), {}, "not checked in time"),
    "not started": (lambda: _app(_node(), started=False), {}, "the node is not started"),
    "after accept": (lambda: _app(_node(authenticator=Raises(AuthenticationFailed("no"))), accepts=True), {}, ": no ("),
    "dependency": (_bearer, {}, "no bearer token"),
    "proxy": (_proxy, {}, "the upstream cannot be reached"),
    "endpoint": (_raising(AuthenticationFailed("no member")), {}, "HTTP 403, no member"),
    "endpoint after accept": (_raising(AuthenticationFailed("no member"), accepts=True), {}, "close code 1008, no mem"),
    "own dependency": (_raising(AuthenticationFailed("no member"), depends=True), {}, "HTTP 403, no member"),
    "HTTPException of a dependency": (_raising(HTTPException(402, "pay first"), depends=True), {}, "HTTP 402"),
    "connect block": (_in_block, {}, "close code 1008, no member"),
    "unknown path": (lambda: FastAPI(lifespan=_node().lifespan), {}, "HTTP 403, without a reason"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_refusal_logs_one_line(way: str, caplog: pytest.LogCaptureFixture) -> None:
    build, options, reason = WAYS[way]
    caplog.set_level(logging.INFO, logger="dws")
    clients, options = options.get("clients", 1), {name: options[name] for name in options if name != "clients"}
    async with serve(build()) as server:
        host = server.url.removeprefix("ws://")
        async with asyncio.timeout(HANG_S):
            await _connect_until_refused(f"{server.url}/ws", clients, options)
    (line,) = _lines(caplog)
    assert reason in line
    assert line.endswith(f"(origin {ORIGIN!r}, host {host!r})")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("way", "counted"),
    [
        ("own dependency", {"application": 1}),
        ("endpoint", {"application": 1}),
        ("endpoint after accept", {"application": 1}),
        ("HTTPException", {"application": 1}),
        ("authenticator", {"credentials": 1}),
        ("after accept", {"credentials": 1}),
        ("origin", {"origin": 1}),
        ("limit of connections", {"full": 1}),
    ],
)
async def test_refusal_is_counted_once(way: str, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the node in `connect`, or for the node by the server."""
    managers: list[WebSocketManager] = []
    init = WebSocketManager.__init__

    def remember(self: WebSocketManager, *args: Any, **kwargs: Any) -> None:
        managers.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(WebSocketManager, "__init__", remember)
    build, options, _ = WAYS[way]
    clients, options = options.get("clients", 1), {name: options[name] for name in options if name != "clients"}
    async with serve(build()) as server, asyncio.timeout(HANG_S):
        await _connect_until_refused(f"{server.url}/ws", clients, options)
        assert managers[0].stats().refused == counted


async def test_accepted_client_is_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A normal end, and a close by the application with another code than 1008, are no refusals."""
    caplog.set_level(logging.INFO, logger="dws")
    manager = _node()
    async with serve(_app(manager)) as server:
        for code in (1000, 4500):
            async with Client.open(f"{server.url}/ws", origin=ORIGIN) as client:
                await client.exchange(type="ping")
                manager.active_connections[0].disconnect(code)
                assert (await client.wait_closed()).rcvd.code == code
    assert (_lines(caplog), manager.stats().refused) == ([], {})


async def _connect_until_refused(url: str, clients: int, options: dict[str, Any]) -> None:
    try:
        async with Client.open(url, origin=ORIGIN, **options) as client:
            if clients > 1:
                await _connect_until_refused(url, clients - 1, options)
            else:
                await client.socket.recv()
                raise AssertionError("the client was not refused")
    except (InvalidStatus, ConnectionClosed):
        pass


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record for record in caplog.records if "refused the client" in record.getMessage()]
    assert all((record.name, record.levelno) == ("dws", logging.INFO) for record in found)
    return [record.getMessage() for record in found]


async def test_node_that_stops_during_a_handshake_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="dws")
    authenticator = Hangs()
    manager = _node(authenticator=authenticator)
    async with manager, asyncio.TaskGroup() as group:
        connecting = group.create_task(_refused(manager, FakeWebSocket(headers={"origin": ORIGIN})))
        await authenticator.asked.wait()
        await manager.shutdown()
        authenticator.may_answer.set()
        await connecting
    (line,) = _lines(caplog)
    assert "the node was stopped during the handshake" in line


async def _refused(manager: WebSocketManager, socket: FakeWebSocket) -> None:
    with pytest.raises(Exception, match="stopped"):
        await manager.new_connection(socket)


async def test_client_that_leaves_is_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The handshake is cancelled, and there is nobody to refuse."""
    caplog.set_level(logging.INFO, logger="dws")
    authenticator = Hangs()
    async with _node(authenticator=authenticator) as manager, asyncio.TaskGroup() as group:
        connecting = group.create_task(manager.new_connection(FakeWebSocket(headers={"origin": ORIGIN})))
        await authenticator.asked.wait()
        connecting.cancel()
    assert _lines(caplog) == []


async def test_invalid_filter_keeps_its_class() -> None:
    async with _node() as manager:
        with pytest.raises(InvalidFilter):
            await manager.new_connection(FakeWebSocket(), topic="a/#/b")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"GET /ws HTTP/1.1\r\nHost: h\r\nOrigin: https://page.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
         "HTTP 400, no WebSocket handshake (origin 'https://page.example', host 'h')"),
        (b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
         "HTTP 400, no WebSocket handshake (origin '', host 'h')"),
        (b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + b"X-Much: more\r\n" * 200
         + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
         "the request is malformed (origin '', host '')"),
    ],
)  # fmt: skip
async def test_request_that_is_no_handshake_logs_one_line(
    request_: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dws")
    async with serve(_app(_node())) as server, asyncio.timeout(HANG_S):
        host, _, port = server.url.removeprefix("ws://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_)
        assert (await reader.read()).startswith(b"HTTP/1.1 4")
        writer.close()
        await writer.wait_closed()
    (line,) = _lines(caplog)
    assert reason in line


async def test_lines_that_are_left_out_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = refusal._Lines()
    lines.allowance = TokenBucket(1e-6, 2, now=0.0)
    monkeypatch.setattr(refusal, "_lines", lines)
    caplog.set_level(logging.INFO, logger="dws")
    for _ in range(5):
        refusal.log_refused_client(("127.0.0.1", 1), "no")
    assert len(_lines(caplog)) == 2
    lines.allowance = TokenBucket(1, 1, now=0.0)
    refusal.log_refused_client(None, "no", origin="o" * 500)
    line = _lines(caplog)[-1]
    assert line == f"refused the client unknown: no (origin {'o' * 200!r}, host ''); 3 before it have no line"
