"""Expiry and refresh of open connections, on real servers."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.clients import client as client_of
from support.clients import receive_data
from support.servers import HANG_S, Client, serve
from support.timeouts import progress_timeout

from dws_core import (
    AuthenticationFailed,
    Connection,
    Handshake,
    Limits,
    Permissions,
    Principal,
    WebSocketManager,
)
from dws_core._node.connection.host import StandaloneHost
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.requests.refresh import Removal
from dws_core.client import Gap
from dws_core.testing import FakeWebSocket, FaultyBroker

FAR_S = 3600


def verify(token: str) -> Principal | None:
    """Read tokens such as `ann:60`, or `ann:60:x,y` with the rooms that the user may read."""
    user, _, rest = token.partition(":")
    in_s, _, rooms = rest.partition(":")
    if not in_s.removeprefix("-").replace(".", "").isdigit():
        return None
    return Principal(id=user, expires_at=time.time() + float(in_s), claims={"room": rooms})


RULES = Permissions({"public/#": {"subscribe", "send"}, "room/{principal.claims.room}": {"subscribe", "send"}})


def app_of(manager: WebSocketManager) -> FastAPI:
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    return app


def node(**kwargs: Any) -> tuple[WebSocketManager, FastAPI]:
    options: dict[str, Any] = {"broker_url": "memory://", "verify_token": verify, **kwargs}
    manager = WebSocketManager("identity", **options)
    return manager, app_of(manager)


@asynccontextmanager
async def connected(app: FastAPI, token: str) -> Any:
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws", additional_headers={"Authorization": f"Bearer {token}"}) as client:
            yield client


async def test_connection_ends_at_expiry() -> None:
    _, app = node()
    async with connected(app, "ann:1") as client:
        began = time.monotonic()
        frame = await client.receive()
        assert frame["type"] == "expiring"
        assert 0 < frame["in_s"] <= 0.5
        closed = (await client.wait_closed()).rcvd
        assert (closed.code, closed.reason) == (4002, "token expired")
        assert time.monotonic() - began >= 0.8


async def test_expiry_does_not_need_the_broker() -> None:
    """The token expires while the broker is away."""
    broker = FaultyBroker("memory://")
    manager = WebSocketManager("identity", broker=broker, verify_token=verify)
    async with connected(app_of(manager), "ann:2") as client:
        await client.exchange(type="ping")
        async with broker.unreachable():
            assert (await client.receive())["type"] == "expiring"
            assert (await client.exchange(type="refresh", data={"token": "ann:3"}, id=1))["type"] == "ack"
            assert (await client.wait_closed()).rcvd.code == 4002


async def test_refresh_extends_the_connection() -> None:
    manager, app = node(limits=Limits(messages_per_s=None))
    async with connected(app, "ann:1") as client:
        assert (await client.receive())["type"] == "expiring"
        answer = await client.exchange(type="refresh", data={"token": f"ann:{FAR_S}"}, id=1)
        assert (answer["type"], answer["id"]) == ("ack", 1)
        assert FAR_S - 10 < answer["expires_in_s"] <= FAR_S
        await _lives_past(client, 1.0)
        (connection,) = manager.active_connections
        assert connection.principal is not None
        assert connection.principal.expires_at is not None
        assert connection.principal.expires_at > time.time() + 60


async def _lives_past(client: Client, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert (await client.exchange(type="ping"))["type"] == "pong"


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        ({"token": "wrong"}, "unauthenticated", "not valid"),
        ({"token": "ann:-5"}, "unauthenticated", "expired"),
        ({"token": "x" * 60_000}, "unauthenticated", "not valid"),
        ({"token": ""}, "invalid-message", "token"),
        ({}, "invalid-message", "token"),
        ("ann:60", "invalid-message", "token"),
        ({"token": f"bo:{FAR_S}"}, "forbidden", "another user"),
    ],
    ids=["wrong", "expired", "huge", "empty", "missing", "no object", "other user"],
)
async def test_bad_refresh_keeps_old_expiry(data: Any, code: str, text: str) -> None:
    """The connection stays open until its old expiry."""
    manager, app = node()
    async with connected(app, "ann:2") as client:
        answer = await client.exchange(type="refresh", data=data, id=1)
        assert (answer["type"], answer["code"], answer["id"]) == ("error", code, 1)
        assert text in answer["message"]
        assert "ann:" not in answer["message"]
        (connection,) = manager.active_connections
        assert connection.principal is not None
        assert connection.principal.id == "ann"
        assert (await client.exchange(type="ping"))["type"] in ("pong", "expiring")
        assert (await client.wait_closed()).rcvd.code == 4002


async def test_refresh_after_close_changes_nothing() -> None:
    """The token is verified while the connection closes."""
    verifying, go_on = asyncio.Event(), asyncio.Event()

    async def slow(token: str) -> Principal | None:
        if token == "second":
            verifying.set()
            await go_on.wait()
        return Principal(id="ann", claims={"token": token})

    manager, app = node(verify_token=slow)
    async with connected(app, "first") as client:
        await client.exchange(type="ping")
        (connection,) = manager.active_connections
        await client.send(type="refresh", data={"token": "second"}, id=1)
        await asyncio.wait_for(verifying.wait(), HANG_S)
        await connection.close(4500)
        go_on.set()
        assert (await client.wait_closed()).rcvd.code == 4500
        assert connection.principal == Principal(id="ann", claims={"token": "first"})


async def test_refresh_after_expiry_changes_nothing() -> None:
    """The old token expires while the new one is verified."""
    verifying, go_on = asyncio.Event(), asyncio.Event()

    async def slow(token: str) -> Principal | None:
        if token == "second":
            verifying.set()
            await go_on.wait()
        return Principal(id="ann", expires_at=time.time() + (FAR_S if token == "second" else 1))

    manager, app = node(verify_token=slow)
    async with connected(app, "first") as client:
        await client.exchange(type="ping")
        (connection,) = manager.active_connections
        before = connection.principal
        await client.send(type="refresh", data={"token": "second"}, id=1)
        await asyncio.wait_for(verifying.wait(), HANG_S)
        assert (await client.wait_closed()).rcvd.code == 4002
        go_on.set()
    assert connection.principal is before
    assert len(manager._runtime.lifetimes._next) == 0


async def test_refresh_removes_filters_that_are_not_allowed() -> None:
    manager, app = node(authorize=RULES)
    async with connected(app, f"ann:{FAR_S}:red") as client:
        await client.subscribe("public/#")
        await client.subscribe("room/red")
        await client.send(type="refresh", data={"token": f"ann:{FAR_S}:blue"}, id=5)
        assert await client.receive() == {"type": "unsubscribed", "topic": "room/red", "reason": "forbidden"}
        assert (await client.receive())["type"] == "ack"
        assert (await client.exchange(type="send", topic="room/red", data=1, id=6))["code"] == "forbidden"
        await client.subscribe("room/blue")
        assert set(manager.active_connections[0].topics) == {"public/#", "room/blue"}
        await manager.publish("room/red", "secret")
        await manager.publish("room/blue", "open")
        assert (await client.receive())["data"] == "open"


async def test_failing_authorize_keeps_old_principal() -> None:
    fails = False

    def authorize(principal: Principal | None, action: str, subject: str) -> bool:
        if fails:
            raise RuntimeError("the database is down")
        return True

    manager, app = node(authorize=authorize)
    async with connected(app, f"ann:{FAR_S}") as client:
        await client.subscribe("t")
        before = manager.active_connections[0].principal
        fails = True
        assert (await client.exchange(type="refresh", data={"token": f"ann:{2 * FAR_S}"}, id=1))["code"] == "internal"
        assert manager.active_connections[0].principal is before


async def test_anonymous_connection_has_nothing_to_refresh() -> None:
    _, app = node(verify_token=None)
    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        answer = await client.exchange(type="refresh", data={"token": "ann:60"}, id=1)
        assert (answer["code"], answer["temporary"]) == ("forbidden", False)
        assert "not authenticated" in answer["message"]


async def test_authenticator_without_tokens_refuses_refresh() -> None:
    class Headers:
        async def authenticate(self, handshake: Handshake) -> Principal:
            if "x-user" not in handshake.headers:
                raise AuthenticationFailed("no header")
            return Principal(id=handshake.headers["x-user"])

    _, app = node(verify_token=None, authenticator=Headers())
    async with serve(app) as server, Client.open(f"{server.url}/ws", additional_headers={"x-user": "ann"}) as client:
        answer = await client.exchange(type="refresh", data={"token": "ann:60"}, id=1)
        assert answer["code"] == "forbidden"
        assert "cannot verify tokens" in answer["message"]
        assert (await client.exchange(type="ping"))["type"] == "pong"


async def test_refresh_costs_eleven_messages() -> None:
    _, app = node(limits=Limits(messages_per_s=0.001, burst=25))
    async with connected(app, f"ann:{FAR_S}") as client:
        answers = []
        async with progress_timeout() as progress:
            for number in range(3):
                answers.append(await client.exchange(type="refresh", data={"token": f"ann:{FAR_S}"}, id=number))
                progress()
        assert [answer["type"] for answer in answers] == ["ack", "ack", "error"]
        assert answers[-1]["code"] == "rate-limited"


async def test_recovering_connection_is_closed_instead() -> None:
    """Its replay may contain messages of the filter. It reconnects with the new permissions."""
    host, attachments = StandaloneHost(), Attachments()
    removal = Removal(attachments, host.fanout)
    socket = FakeWebSocket()
    connection = Connection(socket, "ann", host=host)
    await connection.accept()
    connection.topics.add("room/red")
    attachments._all[connection] = object()  # type: ignore[assignment]
    removal.remove(connection, (), "forbidden")
    assert not connection.closed
    removal.remove(connection, ("room/red",), "forbidden")
    assert (connection.close_code, socket.frames) == (4001, [])
    await host.tasks.stop()


async def test_sender_is_stamped_by_the_node() -> None:
    """In live messages, in history and after a resume, on another node. The client cannot choose it."""
    url = f"memory://{secrets.token_hex(4)}"
    (_, a), (manager, b) = node(broker_url=url, stamp_sender=True), node(broker_url=url, verify_token=None)
    async with connected(a, f"ann:{FAR_S}") as ann, serve(b) as server, Client.open(f"{server.url}/ws") as reader:
        await reader.subscribe("t")
        await ann.exchange(type="send", topic="t", data={"from": "bo"}, id=1, **{"from": "bo"})
        message = await reader.receive()
        assert (message["from"], message["data"]) == ("ann", {"from": "bo"})
        (stored,) = (await reader.exchange(type="history", topic="t", limit=1))["messages"]
        assert stored == {"data": {"from": "bo"}, "pos": message["pos"], "from": "ann"}
        assert (await manager.history("t"))[0].sender == "ann"
        await manager.publish("t", "by the application")
        assert "from" not in await reader.receive()


async def test_anonymous_sender_is_its_connection() -> None:
    manager, app = node(verify_token=None, stamp_sender=True)
    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        await client.subscribe("t")
        await client.send(type="send", topic="t", data=1)
        assert (await client.receive())["from"] == manager.active_connections[0].id


async def test_senders_are_not_stamped_by_default() -> None:
    _, app = node()
    async with connected(app, f"ann:{FAR_S}") as client:
        await client.subscribe("t")
        await client.send(type="send", topic="t", data=1)
        assert "from" not in await client.receive()


async def test_clients_with_two_second_tokens_miss_nothing() -> None:
    """One client refreshes its token. The other one cannot, so it is closed with 4002, reconnects and resumes."""
    seen: list[str] = []

    def two_seconds(token: str) -> Principal:
        seen.append(token)
        return Principal(id=token, expires_at=time.time() + 2)

    manager, app = node(verify_token=two_seconds)
    gaps: list[Gap] = []
    async with serve(app) as server, AsyncExitStack() as stack:
        subscriptions = []
        for user in ("ann", "bo"):
            made = client_of(f"{server.url}/ws", token=partial(str, user), on_gap=gaps.append)
            if user == "bo":
                made._refreshing.begin = lambda: None  # type: ignore[method-assign]
            await stack.enter_async_context(made)
            subscriptions.append(await stack.enter_async_context(made.subscribe("t")))
        total = 0
        async with progress_timeout() as progress:
            while seen.count("bo") < 4 or seen.count("ann") < 4:
                sent = list(range(total, total + 5))
                for number in sent:
                    await manager.publish("t", number)
                for subscription in subscriptions:  # a client whose queue is full would stop reading
                    assert await receive_data(subscription, len(sent)) == sent
                total += len(sent)
                progress()
    assert gaps == []
