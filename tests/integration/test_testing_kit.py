"""The testing kit for applications: servers, clients, assertions, time limits, and several nodes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.apps import chat, chat_app
from support.timeouts import HANG_S
from websockets.exceptions import InvalidStatus

from dws_core import BearerAuthenticator, BrokerUnavailable, Limits, Principal, WebSocketManager
from dws_core.client import Client
from dws_core.plugin import GapReason
from dws_core.testing import AppClient, FaultyBroker, Server, serve, serve_nodes
from dws_core.testing.apps import server as apps_server


def make_app(broker: FaultyBroker) -> FastAPI:
    manager = WebSocketManager("chat", broker=broker)
    app = chat_app(manager)
    app.state.manager = manager
    return app


def manager_of(server: Server) -> WebSocketManager:
    manager: WebSocketManager = server.config.app.state.manager  # type: ignore[union-attr]
    return manager


# -- received messages


async def test_assert_received_checks_order_and_skips_pos() -> None:
    manager, app = chat(limits=Limits(pos_interval_s=0.01))
    async with serve(app) as server, server.connect("/ws/alice") as alice:
        await alice.subscribe("chat/#")
        await alice.publish("chat/1", {"n": 1})
        await manager.publish("chat/2", {"n": 2})
        await manager.send_to("alice", "direct")
        await alice.assert_received({"n": 1}, topic="chat/1")
        await alice.assert_received({"n": 2}, "direct")
        while alice.frames[-1]["type"] != "pos":
            await alice.receive()
        await manager.publish("chat/3", 3)
        await alice.assert_received(3)


@pytest.mark.parametrize(
    ("data", "topic", "complaint"),
    [
        ("a", "t", r"expected message 1 of 1, 'b', but received 'a' on topic 't'"),
        ("b", "u", r"expected message 1 of 1, 'b', on topic 't', but its topic is 'u'"),
    ],
)
async def test_unexpected_message_is_shown(data: str, topic: str, complaint: str) -> None:
    _, app = chat()
    async with serve(app) as server, server.connect("/ws/alice") as alice:
        await alice.subscribe("#")
        await alice.publish(topic, data)
        with pytest.raises(AssertionError, match=complaint):
            await alice.assert_received("b", topic="t")


async def test_missing_message_times_out_and_shows_received() -> None:
    _, app = chat()
    async with serve(app) as server, server.connect("/ws/alice", within_s=1.0) as alice:
        with pytest.raises(AssertionError, match=r"waited 1\.0 s for a frame\. Received no frames"):
            await alice.receive()
        await alice.subscribe("t")
        await alice.publish("t", "first")
        with pytest.raises(
            AssertionError, match=r"for message 2 of 2, 'second'\. Received 3 frames .*'first' on topic 't'"
        ):
            await alice.assert_received("first", "second")


async def test_unexpected_error_is_shown() -> None:
    _, app = chat()
    async with serve(app) as server, server.connect("/ws/alice") as alice:
        await alice.send(type="subscribe", topic="a#", id=1)
        with pytest.raises(AssertionError, match="message 1 of 1, 'x', but received the error 'invalid-filter'"):
            await alice.assert_received("x")
        with pytest.raises(AssertionError, match="the node refused to publish to 'a/#': the error 'invalid-topic'"):
            await alice.publish("a/#", "x")


# -- messages that must not arrive


async def test_assert_nothing_received_uses_sentinel() -> None:
    """It leaves no filter."""
    manager, app = chat()
    async with serve(app) as server, server.connect("/ws/alice") as alice:
        await alice.subscribe("mine")
        await manager.publish("others", "not for alice")
        await alice.assert_nothing_received()
        await alice.assert_nothing_received(topic="mine", publish=manager.publish)
        (connection,) = manager.active_connections
        assert set(connection.topics) == {"mine"}


@pytest.mark.parametrize("how", ["own topic", "by the manager"])
async def test_assert_nothing_received_shows_received(how: str) -> None:
    manager, app = chat()
    async with serve(app) as server, server.connect("/ws/alice") as alice:
        await alice.subscribe("chat/#")
        await manager.publish("chat/1", "one")
        await manager.send_to("alice", "two")
        by: Any = {} if how == "own topic" else {"topic": "chat/x", "publish": manager.publish}
        shown = r"expected nothing, but received 2: 'one' on topic 'chat/1'; 'two' sent to the connection"
        with pytest.raises(AssertionError, match=shown):
            await alice.assert_nothing_received(**by)


async def test_message_before_reply_is_not_overlooked() -> None:
    manager, app = chat()
    async with serve(app) as server, server.connect("/ws/alice") as alice:
        await alice.subscribe("t")
        await manager.publish("t", "early")
        await alice.subscribe("u")  # its reply follows the message
        with pytest.raises(AssertionError, match="'early'"):
            await alice.assert_nothing_received()


async def test_rejected_sentinel_is_explained() -> None:
    manager = WebSocketManager("chat", broker_url="memory://", authorize=lambda who, action, topic: topic == "mine")
    async with serve(chat_app(manager)) as server, server.connect("/ws/alice") as alice:
        with pytest.raises(AssertionError, match=r"the sentinel was not published: .*forbidden.*manager.publish"):
            await alice.assert_nothing_received()
        await alice.subscribe("mine")
        await alice.assert_nothing_received(topic="mine", publish=manager.publish)


# -- handshakes and ends


async def test_connect_passes_handshake_arguments() -> None:
    async def verify(token: str) -> Principal | None:
        return Principal(id=token) if token == "alice" else None

    manager = WebSocketManager("chat", broker_url="memory://", authenticator=BearerAuthenticator(verify=verify))
    async with serve(chat_app(manager)) as server:
        async with server.connect("/ws/x", token="alice", headers={"x-test": "1"}, subprotocols=["dws.v1.json"]) as a:
            (connection,) = manager.active_connections
            assert connection.principal is not None
            assert connection.principal.id == "alice"
            assert a.socket.subprotocol == "dws.v1.json"
        for wrong in ({"token": "mallory"}, {"token": "alice", "origin": "https://evil.example"}):
            with pytest.raises(InvalidStatus):
                async with server.connect("/ws/x", **wrong):
                    raise AssertionError("it came in")


async def test_assert_refused_checks_status() -> None:
    manager = WebSocketManager("chat", broker_url="memory://", verify_token=lambda token: None)
    app = chat_app(manager)

    @app.websocket("/closes")
    async def closes(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1008)

    async with serve(app) as server:
        await server.assert_refused(401, "/ws/alice")
        await server.assert_refused(401, "/ws/alice", token="wrong")
        with pytest.raises(AssertionError, match=r"to refuse with HTTP 403, but it refused with 401: .*token"):
            await server.assert_refused(403, "/ws/alice", token="wrong")
        with pytest.raises(AssertionError, match="to refuse with HTTP 401, but it accepted the handshake"):
            await server.assert_refused(401, "/closes")
        await AppClient.assert_refused(403, f"{server.url}/no-such-path")
    async with serve_nodes(make_app, count=1) as (node,):
        await node.assert_refused(403)


async def test_assert_closed_checks_close_code() -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with server.connect("/ws/alice") as alice, server.connect("/ws/bob") as bob:
            await manager.shutdown()
            await alice.assert_closed(1012)
            with pytest.raises(
                AssertionError, match="expected the close code 1000, but the connection was closed with 1012"
            ):
                await bob.assert_closed(1000)
            with pytest.raises(AssertionError, match="waited for a frame, but the connection was closed with 1012"):
                await bob.receive()
            await manager.startup()
        async with server.connect("/ws/alice", within_s=1.0) as alice:
            with pytest.raises(AssertionError, match=r"waited 1\.0 s for the close\. Received no frames"):
                await alice.assert_closed(1000)


async def test_failed_application_start_is_explained() -> None:
    app = FastAPI(lifespan=lambda app: (_ for _ in ()).throw(RuntimeError("no database")))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the application's lifespan failed"):
        async with serve(app, log_level="critical"):
            raise AssertionError("it started")


# -- time limits


async def test_handshake_without_answer_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/ws"
        with pytest.raises(AssertionError, match=rf"waited 0\.01 s for the answer to the handshake of {url}"):
            async with AppClient.open(url, within_s=0.01):
                raise AssertionError("it came in")
        with pytest.raises(AssertionError, match="waited"):
            await AppClient.assert_refused(401, url, within_s=0.01)


async def test_send_to_node_that_does_not_read_times_out() -> None:
    app, end = FastAPI(), asyncio.Event()

    @app.websocket("/ws")
    async def never_reads(websocket: WebSocket) -> None:
        await websocket.accept()
        await end.wait()

    async with serve(app, ws_max_size=2**30) as server, server.connect(within_s=0.5) as client:
        transport = client.socket.transport
        transport.set_write_buffer_limits(0)

        async def send_forever() -> None:
            while True:
                await client.send(data="x" * 1_000_000)

        with pytest.raises(AssertionError, match=r"waited 0\.5 s for the node to read"):
            await send_forever()
        client.vanish()
        end.set()


async def test_publish_of_sentinel_times_out() -> None:
    _, app = chat()

    async def hangs(topic: str, data: str) -> None:
        await asyncio.Event().wait()

    async with serve(app) as server, server.connect("/ws/alice", within_s=0.05) as alice:
        with pytest.raises(AssertionError, match=r"the sentinel was not published: waited 0\.05 s for .*hangs"):
            await alice.assert_nothing_received(topic="t", publish=hangs)


async def test_application_that_never_starts_times_out() -> None:
    @asynccontextmanager
    async def hangs(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    with pytest.raises(AssertionError, match=r"waited 0\.05 s for the start of the application's lifespan"):
        async with serve(FastAPI(lifespan=hangs), start_s=0.05):
            raise AssertionError("it started")


@pytest.mark.parametrize("what", ["lifespan", "handler"])
async def test_application_that_never_stops_times_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps_server, "_STOP_S", 0.2)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if what == "lifespan":
            await asyncio.Event().wait()

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        if what == "handler":
            await asyncio.Event().wait()

    rest = "1 handlers still run" if what == "handler" else "its lifespan has not ended"
    with pytest.raises(AssertionError, match=rf"waited 0\.2 s for the application to stop, but {rest}"):
        async with serve(app) as server, server.connect():
            pass


# -- several nodes


async def test_nodes_share_log_and_one_can_be_stopped() -> None:
    async with serve_nodes(make_app, count=3) as (one, two, three):
        async with one.connect("/ws/alice") as alice, three.connect("/ws/carol") as carol:
            await carol.subscribe("chat/#")
            async with two.connect("/ws/bob") as bob:
                await two.server.stop()
                await bob.assert_closed(1012)
            await alice.publish("chat/lobby", "still here")
            await carol.assert_received("still here")
            assert one.http_url.startswith("http://127.0.0.1:")


async def test_node_groups_are_isolated() -> None:
    async with serve_nodes(make_app, count=1) as (one,), serve_nodes(make_app, count=1) as (other,):
        async with one.connect("/ws/alice") as alice, other.connect("/ws/bob") as bob:
            await alice.subscribe("#")
            await bob.publish("t", "elsewhere")
            await alice.assert_nothing_received()


async def test_reconnecting_client_survives_its_node() -> None:
    async with serve_nodes(make_app) as (one, two):
        async with Client(f"{one.url}/ws/me", proxy=False) as client, client.subscribe("t") as messages:
            await manager_of(two.server).publish("t", "through the other node")
            assert (await asyncio.wait_for(anext(messages), HANG_S)).data == "through the other node"


async def test_unreachable_broker_affects_its_node_only() -> None:
    async with serve_nodes(make_app) as (one, two):
        async with one.connect("/ws/alice") as alice, two.connect("/ws/bob") as bob:
            await alice.subscribe("t")
            await bob.subscribe("t")
            async with one.broker.unreachable():
                with pytest.raises(BrokerUnavailable):
                    await manager_of(one.server).publish("t", "nowhere")
                await manager_of(two.server).publish("t", "during the outage")
                await bob.assert_received("during the outage")
            await manager_of(two.server).publish("t", "after")
            await alice.assert_received("during the outage", "after")
            await bob.assert_received("after")
            await bob.assert_nothing_received()
            await bob.publish("t", "last")
            await alice.assert_received("last")
            with pytest.raises(AssertionError, match="a gap with the reason epoch, but received 'last' on topic 't'"):
                await bob.assert_gap("epoch")
            async with one.broker.unreachable(GapReason.TRIMMED):
                pass
            with pytest.raises(AssertionError, match="the reason epoch, but received a gap with the reason trimmed"):
                await alice.assert_gap("epoch")


async def test_unexpected_gap_is_shown() -> None:
    async with serve_nodes(make_app, count=1) as (node,), node.connect("/ws/alice") as alice:
        await alice.subscribe("t")
        async with node.broker.tail_cut():
            pass
        with pytest.raises(AssertionError, match="but received a gap with the reason trimmed"):
            await alice.assert_received("x")


async def test_frozen_broker_delays_without_loss() -> None:
    async with serve_nodes(make_app, count=1) as (node,), node.connect("/ws/alice") as alice:
        await alice.subscribe("t")
        with node.broker.frozen():
            await alice.send(type="send", topic="t", data="later")
        await alice.assert_received("later")
