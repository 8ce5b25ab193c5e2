"""Messages to users and commands of applications, on several nodes."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.brokers import PlainBroker
from support.resume import connect, receive_replay
from support.servers import HANG_S, Client, Server, serve
from support.timeouts import progress_timeout

from dws_core import (
    BearerAuthenticator,
    BrokerUnavailable,
    ConfigurationError,
    InvalidFilter,
    InvalidMessage,
    Principal,
    WebSocketManager,
)
from dws_core.testing import FaultyBroker


def verify(token: str) -> Principal:
    return Principal(id=token)


class Node:
    """A node whose clients are authenticated, and its server."""

    def __init__(self, broker: Any, **kwargs: Any) -> None:
        self.manager = WebSocketManager("users", broker=broker, verify_token=verify, **kwargs)
        self.app = FastAPI(lifespan=self.manager.lifespan)
        self.server: Server

        @self.app.websocket("/ws")
        async def endpoint(websocket: WebSocket, conn_id: str | None = None) -> None:
            async with self.manager.connect(websocket, conn_id) as connection:
                async for message in connection:
                    await self.manager.receive(connection, message)

    @asynccontextmanager
    async def client(self, user: str, conn_id: str | None = None) -> AsyncIterator[Client]:
        """Connect as a user."""
        query = "" if conn_id is None else f"?conn_id={conn_id}"
        headers = {"Authorization": f"Bearer {user}"}
        async with Client.open(f"{self.server.url}/ws{query}", additional_headers=headers) as client:
            await client.exchange(type="ping")
            yield client


@asynccontextmanager
async def nodes(count: int = 2) -> AsyncIterator[list[Node]]:
    """Serve nodes that share a broker in memory."""
    url = f"memory://{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        found = [Node(FaultyBroker(url)) for _ in range(count)]
        for node in found:
            node.server = await stack.enter_async_context(serve(node.app))
        yield found


async def test_message_to_user_reaches_all_devices() -> None:
    """On all nodes, whatever their connection ids are, and nobody else."""
    async with nodes() as (a, b), AsyncExitStack() as stack:
        enter = stack.enter_async_context
        devices = [await enter(a.client("ann")), await enter(a.client("ann", "phone")), await enter(b.client("ann"))]
        others = [await enter(b.client("bo")), await enter(a.client("eve", "ann"))]
        await a.manager.send_to_user("ann", {"text": "hi"})
        await b.manager.send_to_user(["bo", "ann", "eve", "ann"], 2)
        await b.manager.broadcast("end")
        for device in devices:
            first = await device.receive()
            assert (first["type"], first["data"], first["user"]) == ("message", {"text": "hi"}, "ann")
            assert {"pos", "data", "type", "user"} == set(first)
            assert [(await device.receive())["data"] for _ in range(2)] == [2, "end"]
        for other in others:
            assert [(await other.receive())["data"] for _ in range(2)] == [2, "end"]


async def test_message_to_user_is_kept_and_resumed() -> None:
    async with nodes() as (a, b):
        async with a.client("ann") as client:
            cursor = (await connect(client, "t"))["cursor"]
        await b.manager.send_to_user("ann", 1)
        await b.manager.send_to_user("bo", "not for ann")
        async with b.client("ann") as client:
            answer = await connect(client, "t", cursor=cursor)
            assert answer["recovered"] is True
            assert await receive_replay(client) == [1]


async def test_client_cannot_use_topics_of_users() -> None:
    async with nodes(1) as (a,), a.client("eve") as eve:
        for request in (
            {"type": "subscribe", "topic": "$user/ann"},
            {"type": "send", "topic": "$user/ann", "data": 1},
            {"type": "history", "topic": "$user/ann", "limit": 1},
            {"type": "send", "topic": "$commands", "data": {"command": "disconnect", "user": "ann"}},
            {"type": "subscribe", "topic": "$commands"},
        ):
            assert (await eve.exchange(**request, id=1))["code"] == "forbidden"
        await eve.subscribe("#")
        await a.manager.send_to_user("ann", 1)
        await a.manager.disconnect(user="ann")
        await a.manager.publish("t", 2)
        assert (await eve.receive())["data"] == 2


@pytest.mark.parametrize("user", ["", "x" * 300, "\ud800"])
async def test_invalid_user_is_refused(user: str) -> None:
    async with nodes(1) as (a,):
        with pytest.raises(InvalidMessage):
            await a.manager.send_to_user(user, 1)


async def test_user_is_disconnected_on_all_nodes() -> None:
    async with nodes() as (a, b), a.client("ann") as here, b.client("ann", "phone") as there, b.client("bo") as bo:
        await a.manager.disconnect(user="ann", reason="signed out")
        for client in (here, there):
            closed = (await client.wait_closed()).rcvd
            assert (closed.code, closed.reason) == (4500, "signed out")
        assert (await bo.exchange(type="ping"))["type"] == "pong"


async def test_connection_id_is_disconnected_on_all_nodes() -> None:
    async with nodes() as (a, b), b.client("ann", "phone") as phone, a.client("phone", "x") as other:
        await a.manager.disconnect(conn_id="phone", code=4001)
        assert (await phone.wait_closed()).rcvd.code == 4001
        assert (await other.exchange(type="ping"))["type"] == "pong"


async def test_wrong_arguments_are_refused() -> None:
    async with nodes(1) as (a,):
        with pytest.raises(ConfigurationError, match="either a user or a conn_id"):
            a.manager.disconnect()
        with pytest.raises(ConfigurationError, match="1005"):
            a.manager.disconnect(user="ann", code=1005)
        with pytest.raises(InvalidFilter):
            a.manager.unsubscribe(user="ann", topic="a/#/b")


async def test_commands_need_the_broker() -> None:
    async with nodes(1) as (a,), a.client("ann") as ann:
        broker = a.manager.broker
        assert isinstance(broker, FaultyBroker)
        with broker.refusing(), pytest.raises(BrokerUnavailable):
            await a.manager.disconnect(user="ann")
        assert (await ann.exchange(type="ping"))["type"] == "pong"


async def test_filter_is_removed_on_all_nodes() -> None:
    async with nodes() as (a, b), a.client("ann") as here, b.client("ann") as there, b.client("bo") as bo:
        for client in (here, there, bo):
            await client.subscribe("chat/1")
            await client.subscribe("news")
        await a.manager.unsubscribe(user="ann", topic="chat/1")
        for client in (here, there):
            assert await client.receive() == {"type": "unsubscribed", "topic": "chat/1", "reason": "unsubscribed"}
        await a.manager.publish("chat/1", "secret")
        await a.manager.publish("news", "open")
        assert [(await client.receive())["data"] for client in (here, there, bo)] == ["open", "open", "secret"]
        await a.manager.unsubscribe(user="ann", topic="chat/1")  # nobody has it any more
        await a.manager.publish("news", "end")
        assert (await here.receive())["data"] == "end"


@pytest.mark.parametrize("way", ["tail_cut", "unreachable", "frozen"])
async def test_node_that_was_cut_off_carries_out_commands(way: str) -> None:
    """It lost its place in the log, catches up, or only lags. Within a second of its return, connections are closed."""
    async with nodes() as (a, b), b.client("ann") as ann, b.client("bo") as bo, b.client("cy") as cy:
        await bo.subscribe("t")
        broker = b.manager.broker
        assert isinstance(broker, FaultyBroker)
        async with AsyncExitStack() as cut:
            if way == "frozen":
                cut.enter_context(broker.frozen())
            else:
                await cut.enter_async_context(getattr(broker, way)())
            await a.manager.disconnect(user="ann")
            await a.manager.unsubscribe(user="bo", topic="t")
            await a.manager.publish("t", "secret")
            assert (await ann.exchange(type="ping"))["type"] == "pong"
            back = time.monotonic()
        assert (await ann.wait_closed()).rcvd.code == 4500
        assert time.monotonic() - back < 1
        while (frame := await bo.receive())["type"] in ("gap", "pos"):
            pass
        assert frame["type"] == "unsubscribed"
        assert (await cy.exchange(type="ping"))["type"] in ("pong", "gap")


async def test_commands_from_before_the_cut_are_not_repeated() -> None:
    async with nodes() as (a, b):
        broker = b.manager.broker
        assert isinstance(broker, FaultyBroker)
        async with b.client("ann") as ann:
            await a.manager.disconnect(user="ann")
            await ann.wait_closed()
        async with b.client("ann") as ann, b.client("bo") as bo:
            async with broker.tail_cut():
                await a.manager.disconnect(user="bo")
            assert (await bo.wait_closed()).rcvd.code == 4500
            assert (await ann.exchange(type="ping"))["type"] == "pong"


async def test_missed_commands_are_read_when_broker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail returns before reads work."""
    async with nodes() as (a, b), b.client("ann") as ann:
        broker = b.manager.broker
        assert isinstance(broker, FaultyBroker)
        heads, failures = broker.heads, [BrokerUnavailable("not yet."), BrokerUnavailable("not yet.")]

        async def heads_later(partitions: Any) -> Any:
            if failures:
                raise failures.pop()
            return await heads(partitions)

        async with broker.tail_cut():
            await a.manager.disconnect(user="ann")
            monkeypatch.setattr(broker, "heads", heads_later)
        assert (await ann.wait_closed()).rcvd.code == 4500
        assert not failures


async def test_live_command_is_not_repeated_by_missed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives while the missed commands are read. Its user reconnects in the meantime."""
    async with nodes() as (a, b), b.client("bo") as bo:
        broker = b.manager.broker
        assert isinstance(broker, FaultyBroker)
        heads, reading, go_on = broker.heads, asyncio.Event(), asyncio.Event()

        async def heads_later(partitions: Any) -> Any:
            reading.set()
            await go_on.wait()
            return await heads(partitions)

        async with b.client("ann") as ann:
            async with broker.tail_cut():
                await a.manager.disconnect(user="bo")
            monkeypatch.setattr(broker, "heads", heads_later)
            await asyncio.wait_for(reading.wait(), HANG_S)
            await a.manager.disconnect(user="ann")
            await ann.wait_closed()
        async with b.client("ann") as ann:
            go_on.set()
            assert (await bo.wait_closed()).rcvd.code == 4500
            assert (await ann.exchange(type="ping"))["type"] == "pong"


async def test_command_during_a_handshake_is_carried_out_after_it() -> None:
    """The authenticator has accepted the client before the application revoked its token."""
    checking, go_on = asyncio.Event(), asyncio.Event()

    async def slow(token: str) -> Principal:
        checking.set()
        await go_on.wait()
        return Principal(id=token)

    node = Node(FaultyBroker("memory://"))
    node.manager._handshakes._authenticator = BearerAuthenticator(verify=slow)
    async with serve(node.app) as node.server, asyncio.TaskGroup() as group:

        async def connect_as(user: str) -> int:
            headers = {"Authorization": f"Bearer {user}"}
            async with Client.open(f"{node.server.url}/ws", additional_headers=headers) as client:
                if user == "bo":
                    assert (await client.exchange(type="ping"))["type"] == "pong"
                    return 0
                return (await client.wait_closed()).rcvd.code

        ann = group.create_task(connect_as("ann"))
        await asyncio.wait_for(checking.wait(), HANG_S)
        await node.manager.disconnect(user="ann")
        await node.manager.disconnect(user="eve")
        go_on.set()
        assert await ann == 4500
        assert await connect_as("bo") == 0


@pytest.mark.parametrize("data", [None, {"command": "reboot"}, {"command": "disconnect", "user": 7}])
async def test_unknown_command_is_ignored(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A node of a later version may have sent it."""
    async with nodes(1) as (a,), a.client("ann") as ann:
        with caplog.at_level(logging.WARNING, "dws"):
            await a.manager._publisher.publish_to_each(["$commands"], data)[0]
            await a.manager.publish("t", 1)
            assert (await ann.exchange(type="ping"))["type"] == "pong"
        assert "a command is ignored" in caplog.text
        assert "could not be delivered" not in caplog.text


async def test_commands_work_on_broker_without_history() -> None:
    node = Node(PlainBroker())
    async with serve(node.app) as node.server, node.client("ann") as ann, node.client("bo") as bo:
        await node.manager.send_to_user("bo", 1)
        assert (await bo.receive())["data"] == 1
        await node.manager.disconnect(user="ann")
        assert (await ann.wait_closed()).rcvd.code == 4500


async def test_broker_without_history_is_not_searched_for_commands(caplog: pytest.LogCaptureFixture) -> None:
    """Every search would fail, and be repeated."""
    node = Node(broker := PlainBroker())
    async with serve(node.app) as node.server, node.client("ann") as ann:
        await ann.subscribe("t")
        broker.end_deliveries()
        assert (await ann.receive())["type"] == "gap"
        assert (await ann.exchange(type="ping"))["type"] == "pong"
    assert "missed commands" not in caplog.text


async def test_revocation_on_three_nodes_takes_less_than_a_second() -> None:
    """The 99th percentile of 200 tries, from the call to the close frame at the last client."""
    durations: list[float] = []
    async with nodes(3) as found, progress_timeout() as progress:
        for number in range(200):
            user = f"user-{number}"
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(node.client(user)) for node in found]
                began = time.monotonic()
                await found[number % 3].manager.disconnect(user=user)
                closed = await asyncio.gather(*(client.wait_closed() for client in clients))
                durations.append(time.monotonic() - began)
                assert {end.rcvd.code for end in closed} == {4500}
            progress()
    assert sorted(durations)[197] < 1


async def test_methods_work_in_threads() -> None:
    async with nodes(1) as (a,), a.client("ann") as ann:

        def work() -> None:
            a.manager.send_to_user("ann", 1).result(HANG_S)
            a.manager.disconnect(user="ann").result(HANG_S)

        await asyncio.to_thread(work)
        assert (await ann.receive())["data"] == 1
        assert (await ann.wait_closed()).rcvd.code == 4500
