"""The Python client with a real node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.apps import chat
from support.clients import Gaps, client, receive_data
from support.servers import HANG_S, serve

from dws_core import (
    AuthenticationFailed,
    ConnectionClosed,
    InvalidFilter,
    Principal,
    WebSocketManager,
)
from dws_core.client import Client, Gap, Message, Refused


async def test_environment_proxies_are_used_unless_disabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        await reader.read()  # until the client closes
        writer.close()
        asked.put_nowait(line)

    _, app = chat()
    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with listening, serve(app) as server, asyncio.timeout(HANG_S):
        url = f"{server.url}/ws/a"
        async with Client(url, proxy=False) as direct:
            await direct.publish("t", 1)
        assert asked.empty()
        opening = Client(url)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(opening.__aenter__())
            line = await asked.get()
            waiting.cancel()
        assert line == b"CONNECT %s HTTP/1.1\r\n" % server.url.removeprefix("ws://").encode()


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_published_message_reaches_other_client(codec: str) -> None:
    _, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/a", codec=codec) as alice:
        async with client(f"{server.url}/ws/b") as bob, bob.subscribe("chat/+") as messages:
            position = await alice.publish("chat/1", {"n": 1})
            async with asyncio.timeout(HANG_S):
                got = await anext(messages)
            assert got == Message(data={"n": 1}, topic="chat/1", position=position)
            assert alice.connected


async def test_each_subscription_receives_its_matches_once() -> None:
    _, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/a") as alice:
        async with alice.subscribe("#") as all_, alice.subscribe("a/+") as some, alice.subscribe("a/+") as same:
            for n, topic in enumerate(["a/1", "b", "a/2"]):
                await alice.publish(topic, n)
            assert await receive_data(all_, 3) == [0, 1, 2]
            assert await receive_data(some, 2) == await receive_data(same, 2) == [0, 2]
            same.close()
            await alice.publish("a/3", 3)
            assert await receive_data(some, 1) == [3]
            with pytest.raises(StopAsyncIteration):
                await anext(same)


async def test_unused_filter_is_removed_at_node() -> None:
    manager, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/a") as alice:
        async with alice.subscribe("a") as first, alice.subscribe("b"):
            assert manager.active_connections[0].topics == {"a", "b"}
            first.close()
            first.close()
            await alice.publish("b", 1)  # the node has read the earlier messages
            assert manager.active_connections[0].topics == {"b"}


async def test_broadcasts_and_direct_messages_reach_inbox() -> None:
    _, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/a") as alice, client(f"{server.url}/ws/b") as bob:
        inbox = bob.inbox()
        await alice.broadcast("all")
        await alice.send_to(["b", "nobody"], "you")
        await alice.send_to("b", "you again")
        assert await receive_data(inbox, 3) == ["all", "you", "you again"]


async def test_repeated_key_is_delivered_once() -> None:
    _, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/a") as alice, alice.subscribe("t") as messages:
        first = await alice.publish("t", 1, key="k")
        assert await alice.publish("t", 2, key="k") == first
        await alice.publish("t", 3)
        assert await receive_data(messages, 2) == [1, 3]


async def test_refusal_is_raised_at_call() -> None:
    _, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/a") as alice:
        with pytest.raises(Refused, match="are reserved for the node"):
            await alice.publish("$all", 1)
        with pytest.raises(Refused, match="are reserved for the node"):
            async with alice.subscribe("$all"):
                pass
        with pytest.raises(Refused, match="wildcard"):
            await alice.publish("a/+", 1)
        with pytest.raises(InvalidFilter):
            alice.subscribe("a#")
        assert await alice.publish("t", 1)


async def test_publishes_over_rate_limit_are_all_stored() -> None:
    from dws_core import Limits

    _, app = chat(limits=Limits(messages_per_s=200, burst=20))
    async with serve(app) as server, client(f"{server.url}/ws/a") as alice, alice.subscribe("t") as messages:
        async with asyncio.TaskGroup() as publishes:
            for n in range(60):
                publishes.create_task(alice.publish("t", n))
        assert sorted(await receive_data(messages, 60)) == list(range(60))


async def test_client_resumes_on_replacement_node() -> None:
    gaps = Gaps()
    manager, first = chat("memory://reborn")
    other, second = chat("memory://reborn")
    async with serve(first) as a, other:
        port = a.port
        alice = client(f"{a.url}/ws/a", on_gap=gaps)
        messages = alice.subscribe("t")
        await alice.__aenter__()
        await manager.publish("t", "before")
        assert await receive_data(messages, 1) == ["before"]
    async with other:
        assert not alice.connected
        await other.publish("t", "while away")
    try:
        async with serve(second, port=port):
            await alice.publish("t", "after")
            assert await receive_data(messages, 2) == ["while away", "after"]
    finally:
        await alice.aclose()
    assert gaps == []


async def test_node_without_connect_is_supported() -> None:
    """A lost connection is a gap there."""
    gaps = Gaps()
    manager = WebSocketManager("c", broker_url="memory://")
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            async for message in connection:
                message.type = "of old" if message.type == "connect" else message.type
                await manager.receive(connection, message)

    async with serve(app) as server, client(f"{server.url}/ws", on_gap=gaps) as alice:
        async with alice.subscribe("t") as messages:
            await alice.publish("t", 1)
            manager.active_connections[0].disconnect(4002)
            await gaps.wait()
            assert gaps == [Gap(filters=("t",), reason="unsupported")]
            await alice.publish("t", 2)
            assert await receive_data(messages, 2) == [1, 2]


async def test_token_is_requested_per_connection() -> None:
    """A wrong token is a permanent error."""
    manager = WebSocketManager("c", broker_url="memory://", verify_token=_verify)
    tokens = iter(["user:ann", "user:bo", "wrong"])

    async def next_token() -> str:
        return next(tokens)

    async with serve(_app(manager)) as server:
        alice = client(f"{server.url}/ws", token=next_token)
        async with alice:
            await alice.publish("t", 1)
            assert [c.id for c in manager.active_connections] == ["ann"]
            manager.active_connections[0].disconnect(4002)
            await alice.publish("t", 2)
            assert [c.id for c in manager.active_connections] == ["bo"]
            manager.active_connections[0].disconnect(4002)
            with pytest.raises(AuthenticationFailed, match="HTTP 401"):
                await alice.publish("t", 3)
            with pytest.raises(AuthenticationFailed):
                alice.subscribe("t")
        with pytest.raises(AuthenticationFailed, match="HTTP 401"):
            async with client(f"{server.url}/ws", token="wrong"):
                pass


@pytest.mark.parametrize("is_async", [True, False])
async def test_application_decides_about_refused_token(is_async: bool) -> None:
    """It signs in again, and the client continues. A token that stays wrong is tried with a growing delay."""
    manager = WebSocketManager("c", broker_url="memory://", verify_token=_verify)
    tokens, refusals = iter(["user:ann", "wrong", "wrong", "user:ann"]), []

    def sign_in_again(error: AuthenticationFailed) -> bool:
        refusals.append(error)
        return True

    async def sign_in_again_later(error: AuthenticationFailed) -> bool:
        return sign_in_again(error)

    decide = sign_in_again_later if is_async else sign_in_again
    async with serve(_app(manager)) as server:
        alice = client(f"{server.url}/ws", token=lambda: next(tokens), on_unauthenticated=decide)
        async with alice, alice.subscribe("t") as messages:
            manager.active_connections[0].disconnect(4002)
            await alice.publish("t", 1)
            assert await receive_data(messages, 1) == [1]
            assert len(refusals) == 2
            assert all("HTTP 401" in str(error) for error in refusals)


@pytest.mark.parametrize("answer", [False, None, "yes", RuntimeError("bug")])
async def test_client_ends_if_application_does_not_sign_in(answer: object) -> None:
    """No loop of attempts with a refused token."""
    manager = WebSocketManager("c", broker_url="memory://", verify_token=_verify)
    asked: list[object] = []

    def decide(error: AuthenticationFailed) -> Any:
        asked.append(error)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with serve(_app(manager)) as server:
        with pytest.raises(AuthenticationFailed, match="HTTP 401"):
            async with client(f"{server.url}/ws", token=lambda: "wrong", on_unauthenticated=decide):
                pass
    assert len(asked) == 1
    assert manager.stats().refused == {"credentials": 1}


async def test_other_refusals_do_not_ask_for_a_token() -> None:
    manager = WebSocketManager("c", broker_url="memory://", verify_token=_verify)
    asked: list[object] = []
    async with serve(_app(manager)) as server:
        with pytest.raises(AuthenticationFailed, match="HTTP 403"):
            async with client(f"{server.url}/nothing", token="user:ann", on_unauthenticated=asked.append):
                pass
    assert asked == []


@pytest.mark.parametrize(
    ("path", "error", "patience_s"),
    [("/nothing", AuthenticationFailed, HANG_S), ("/busy", ConnectionClosed, 0.3)],
    ids=["final", "tried again"],
)
async def test_handshake_status_determines_retry(path: str, error: type[Exception], patience_s: float) -> None:
    app = FastAPI()

    @app.websocket("/busy")
    async def busy(websocket: WebSocket) -> None:
        from starlette.responses import PlainTextResponse

        await websocket.send_denial_response(PlainTextResponse("later", 503))

    async with serve(app, lifespan="off") as server:
        with pytest.raises(error):
            async with client(server.url + path, connect_timeout_s=patience_s):
                pass


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
