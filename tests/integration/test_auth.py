"""Authentication and authorization of connections."""

from __future__ import annotations

import base64
import logging
import sqlite3
from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.exceptions import HTTPException
from starlette.exceptions import WebSocketException as CloseException
from support.servers import Client, serve
from websockets.exceptions import InvalidStatus

from dws_core import AuthenticationFailed, ConfigurationError, Handshake, Principal, WebSocketManager
from dws_core import WebSocketOAuth2PasswordBearer as Bearer
from dws_core._auth.refusal import refuse_authentication


def _verify(token: str) -> Principal | None:
    return Principal(id=token.removeprefix("user:")) if token.startswith("user:") else None


def _app(manager: WebSocketManager) -> FastAPI:
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    return app


def _browser(token: str) -> list[str]:
    return ["dws.v1.json", "dws.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")]


async def _refused(url: str, **kwargs: Any) -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as refused:
        async with Client.open(url, **kwargs):
            pass
    return refused.value.response.status_code, refused.value.response.body


async def test_principal_id_becomes_connection_id() -> None:
    manager = WebSocketManager("c", broker_url="memory://", verify_token=_verify)
    async with serve(_app(manager)) as server:
        headers = {"Authorization": "Bearer user:ann"}
        async with Client.open(f"{server.url}/ws", additional_headers=headers) as ann:
            await ann.exchange(type="ping")
            async with Client.open(f"{server.url}/ws", subprotocols=_browser("user:bo")) as bo:
                assert bo.socket.subprotocol == "dws.v1.json"
                await bo.send(type="send_by_conn_id", conn_id="ann", data="hi")
                assert (await ann.receive())["data"] == "hi"
                assert {c.principal.id for c in manager.active_connections if c.principal} == {"ann", "bo"}


@pytest.mark.parametrize("id_", ["", "x" * 257, "\ud800"])
async def test_invalid_principal_id_closes_with_1008(
    id_: str,
) -> None:
    """The endpoint may give the connection another id."""
    manager = WebSocketManager("c", broker_url="memory://", verify_token=lambda _: Principal(id=id_))
    app = _app(manager)

    @app.websocket("/named")
    async def named(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann") as connection:
            async for message in connection:
                await manager.receive(connection, message)

    async with serve(app) as server:
        headers = {"Authorization": "Bearer any"}
        async with Client.open(f"{server.url}/ws", additional_headers=headers) as client:
            closed = (await client.wait_closed()).rcvd
            assert (closed.code, closed.reason) == (1008, "the id of the principal cannot be a connection id")
        async with Client.open(f"{server.url}/named", additional_headers=headers) as client:
            assert (await client.exchange(type="ping"))["type"] == "pong"


async def test_missing_or_wrong_token_is_rejected_before_accept() -> None:
    """The response does not contain the token."""
    manager = WebSocketManager("c", broker_url="memory://", authenticator="oauth2-bearer", verify_token=_verify)
    async with serve(_app(manager)) as server:
        url = f"{server.url}/ws"
        assert (await _refused(url))[0] == 401
        assert (await _refused(f"{url}?token=user:ann"))[0] == 401
        status, body = await _refused(url, additional_headers={"Authorization": "Bearer stolen"})
        assert status == 401
        assert b"stolen" not in body
        status, _ = await _refused(url, subprotocols=["dws.v1.json", "dws.bearer.%%%"])
        assert status == 401
        assert manager.active_connections == []


@pytest.mark.parametrize(
    ("extensions", "base"), [({"websocket.http.response": {}}, HTTPException), ({}, CloseException)]
)
def test_refusal_passes_text_only_as_detail(
    extensions: dict[str, Any], base: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    init = base.__init__

    def strict(self: Exception, number: int, *others: Any) -> None:  # like Starlette 0.49, which looks up the status
        assert isinstance(number, int)
        init(self, number, *others)

    monkeypatch.setattr(base, "__init__", strict)
    websocket = WebSocket({"type": "websocket", "headers": [], "extensions": extensions}, None, None)  # type: ignore[arg-type]
    error = refuse_authentication(websocket, "no token", fix="send one")
    assert isinstance(error, base)
    assert str(error) == "no token Fix: send one [dws:authentication-failed]"
    assert error.args == ("no token",)


async def test_async_authenticator_object_is_accepted() -> None:
    class Company:
        async def authenticate(self, handshake: Handshake) -> Principal:
            if handshake.headers.get("x-company") != "yes":
                raise AuthenticationFailed("no company header")
            return Principal(id="staff")

    manager = WebSocketManager("c", broker_url="memory://", authenticator=Company())
    async with serve(_app(manager)) as server:
        assert (await _refused(f"{server.url}/ws"))[0] == 401
        async with Client.open(f"{server.url}/ws", additional_headers={"x-company": "yes"}) as client:
            assert (await client.exchange(type="ping"))["type"] == "pong"


def test_authenticator_without_verifier_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="verify_token"):
        WebSocketManager("c", broker_url="memory://", authenticator="oauth2-bearer")


@pytest.mark.parametrize("is_async", [True, False])
async def test_each_action_is_authorized(is_async: bool) -> None:
    def allowed(principal: Principal | None, action: str, subject: str) -> bool:
        return (action, subject) in {("subscribe", "mine/#"), ("send", "mine/1"), ("send_by_conn_id", "me")}

    async def allowed_async(principal: Principal | None, action: str, subject: str) -> bool:
        return allowed(principal, action, subject)

    manager = WebSocketManager("c", broker_url="memory://", authorize=allowed_async if is_async else allowed)
    async with serve(_app(manager)) as server, Client.open(f"{server.url}/ws") as client:
        await client.subscribe("mine/#")
        for forbidden in (
            {"type": "subscribe", "topic": "#"},
            {"type": "send", "topic": "other", "data": 1},
            {"type": "broadcast", "data": 1},
            {"type": "send_by_conn_id", "conn_id": ["me", "you"], "data": 1},
        ):
            answer = await client.exchange(**forbidden, id=1)
            assert (answer["type"], answer["code"]) == ("error", "forbidden")
        await client.send(type="send", topic="mine/1", data="ok")
        assert (await client.receive())["data"] == "ok"


async def test_other_origin_is_rejected_by_default() -> None:
    manager = WebSocketManager("c", broker_url="memory://", allowed_origins=["https://app.example.com"])
    async with serve(_app(manager)) as server:
        url = f"{server.url}/ws"
        for wrong in ("https://evil.example", "null", f"http://127.0.0.1:{server.port + 1}", "http://[bad"):
            assert (await _refused(url, origin=wrong))[0] == 403
        for right in ("https://app.example.com", server.http_url):
            async with Client.open(url, origin=right) as client:
                assert (await client.exchange(type="ping"))["type"] == "pong"


async def test_token_in_cookie_or_query_is_ignored_by_default() -> None:
    app = FastAPI()
    schemes = {"none": Bearer("/t"), "cookie": Bearer("/t", cookie="session"), "query": Bearer("/t", query="token")}

    @app.websocket("/{kind}")
    async def endpoint(websocket: WebSocket, kind: str) -> None:
        token = await schemes[kind](websocket)
        await websocket.accept()
        await websocket.send_json(token)

    async with serve(app) as server:
        cookie = {"Cookie": "session=abc"}
        assert (await _refused(f"{server.url}/none?token=abc", additional_headers=cookie))[0] == 401
        async with Client.open(f"{server.url}/cookie", additional_headers=cookie) as client:
            assert await client.receive() == "abc"
        async with Client.open(f"{server.url}/query?token=abc") as client:
            assert await client.receive() == "abc"


class _Pool:
    """A database with a pool of one connection."""

    def __init__(self) -> None:
        self.in_use = 0
        self.database = sqlite3.connect(":memory:", check_same_thread=False)

    def __enter__(self) -> sqlite3.Connection:
        if self.in_use:
            raise RuntimeError("pool of size 1 is exhausted")
        self.in_use += 1
        return self.database

    def __exit__(self, *exc_info: object) -> None:
        self.in_use -= 1


async def test_verifier_session_is_not_held_by_connection() -> None:
    """A database session opened by `verify_token` is closed before the connection is accepted."""
    pool = _Pool()

    def verify(token: str) -> Principal | None:
        with pool as database:
            (name,) = database.execute("select ?", (token,)).fetchone()
        return Principal(id=name)

    manager = WebSocketManager("c", broker_url="memory://", verify_token=verify)
    async with serve(_app(manager)) as server:
        async with (
            Client.open(f"{server.url}/ws", additional_headers={"Authorization": "Bearer a"}) as a,
            Client.open(f"{server.url}/ws", additional_headers={"Authorization": "Bearer b"}) as b,
        ):
            assert (await a.exchange(type="ping"))["type"] == (await b.exchange(type="ping"))["type"] == "pong"
            assert pool.in_use == 0
    pool.database.close()


async def test_yield_dependency_is_held_by_connection() -> None:
    """The docs warn about this."""
    manager = WebSocketManager("c", broker_url="memory://")
    app = FastAPI(lifespan=manager.lifespan)
    held: list[str] = []

    async def session() -> Any:
        held.append("open")
        yield
        held.append("closed")

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, _: None = Depends(session)) -> None:
        async with manager.connect(websocket) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        await client.exchange(type="ping")
        assert held == ["open"]
    assert held == ["open", "closed"]


async def test_claimed_subprotocol_is_never_echoed_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    class ApiKey:
        secret_subprotocols = ("acme.key.",)

        async def authenticate(self, handshake: Handshake) -> Principal:
            if handshake.secrets.get("acme.key.") != "hush":
                raise AuthenticationFailed("the API key is missing or wrong")
            return Principal(id="ann")

    caplog.set_level(logging.DEBUG, logger="dws")
    manager = WebSocketManager("c", broker_url="memory://", authenticator=ApiKey())
    async with serve(_app(manager)) as server:
        url = f"{server.url}/ws"
        async with Client.open(url, subprotocols=["acme.key.hush", "dws.v1.json"]) as client:
            assert (await client.exchange(type="ping"))["type"] == "pong"
            assert client.socket.subprotocol == "dws.v1.json"
        for offered in (["acme.key.stolen", "dws.v1.json"], ["acme.key.stolen"]):
            status, body = await _refused(url, subprotocols=offered)
            assert status in {400, 401}
            assert b"stolen" not in body
    assert "hush" not in caplog.text
    assert "stolen" not in caplog.text
