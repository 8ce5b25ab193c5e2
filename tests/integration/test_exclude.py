"""Messages that everybody but one sender receives: `publish(exclude=...)`, and `echo: false`."""

from __future__ import annotations

from typing import Any

import pytest
from support.apps import chat
from support.clients import client as reconnecting
from support.clients import receive_data
from support.resume import receive_replay
from support.servers import Client, serve
from support.two_nodes import BROKERS, MakeBroker, serve_two_nodes

from dws_core import Connection, InvalidMessage, WebSocketManager
from dws_core._node.connection.senders import Senders

CLIENT_ID = "a-random-text-of-one-client"
OURS = "dws_core.server:WebSocketProtocol"


async def say_hello(client: Client, *filters: str, **data: Any) -> str:
    """Send `connect`, and return the cursor of the reply."""
    reply = await client.request(type="connect", data={"filters": list(filters), **data})
    cursor: str = reply["cursor"]
    return cursor


def only(manager: WebSocketManager, conn_id: str) -> Connection:
    (found,) = (connection for connection in manager.active_connections if connection.id == conn_id)
    return found


# -- live


@BROKERS
@pytest.mark.parametrize("type_", ["send", "broadcast"])
async def test_message_without_echo_reaches_all_others(make_broker: MakeBroker, type_: str) -> None:
    """Also on another node, and on another connection with the same id."""
    async with serve_two_nodes(make_broker) as (first, second):
        async with (
            Client.open(f"{first.url}/ws/alice") as sender,
            Client.open(f"{first.url}/ws/alice") as tab,
            Client.open(f"{first.url}/ws/bob") as bob,
            Client.open(f"{second.url}/ws/carol") as carol,
        ):
            everybody = (sender, tab, bob, carol)
            for client in everybody:
                await client.subscribe("t")
            members = {"topic": "t"} if type_ == "send" else {}
            await sender.request(type=type_, data="for the others", echo=False, **members)
            await sender.request(type=type_, data="for all", echo=True, **members)
            await sender.assert_received("for all")
            for client in everybody[1:]:
                await client.assert_received("for the others", "for all")


async def test_publish_excludes_connection_or_connection_id() -> None:
    async with serve_two_nodes("memory://both") as (first, second):
        async with (
            Client.open(f"{first.url}/ws/alice") as alice,
            Client.open(f"{second.url}/ws/alice") as far,
            Client.open(f"{second.url}/ws/bob%20%26%20co") as bob,
        ):
            for client in (alice, far, bob):
                await client.subscribe("t")
            await first.manager.publish("t", "not for this alice", exclude=only(first.manager, "alice"))
            await second.manager.publish("t", "not for any alice", exclude="alice")
            await first.manager.broadcast("not for bob", exclude="bob & co")
            await first.manager.publish("t", "for all")
            await alice.assert_received("not for bob", "for all")
            await far.assert_received("not for this alice", "not for bob", "for all")
            await bob.assert_received("not for this alice", "not for any alice", "for all")


async def test_unknown_excluded_id_excludes_nobody() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/alice") as alice:
        await alice.subscribe("t")
        await manager.publish("t", "for all", exclude="nobody")
        await alice.assert_received("for all")
        with pytest.raises(InvalidMessage, match="connection id"):
            manager.publish("t", 1, exclude="")


async def test_all_connections_of_a_client_are_excluded() -> None:
    """A client that reconnects may still have an old connection. Both have sent the same client id."""
    async with serve_two_nodes("memory://client") as (first, second):
        async with (
            Client.open(f"{first.url}/ws/a") as old,
            Client.open(f"{second.url}/ws/b") as new,
            Client.open(f"{second.url}/ws/c") as later,
        ):
            for client in (old, new):
                await say_hello(client, "t", client_id=CLIENT_ID)
            await new.request(type="send", topic="t", data="not for me", echo=False)
            await say_hello(later, "t", client_id=CLIENT_ID)
            await new.request(type="send", topic="t", data="nor for my third connection", echo=False)
            await new.request(type="send", topic="t", data="for all")
            await later.assert_received("for all")
            await later.close()
            await new.request(type="send", topic="t", data="not for the remaining two", echo=False)
            await new.request(type="send", topic="t", data="the end")
            for client in (old, new):
                await client.assert_received("for all", "the end")


async def test_messages_without_echo_need_one_write_per_connection() -> None:
    """Ten senders exclude themselves in one tick of the event loop."""
    manager, app = chat()
    async with serve(app, ws=OURS) as server, Client.open(f"{server.url}/ws/reader") as reader:
        await reader.subscribe("t")
        connection = only(manager, "reader")
        writes: list[bytes] = []
        write = connection._outbox.write

        def counting(data: bytes) -> None:
            writes.append(data)
            write(data)

        connection._outbox.write = counting
        pending = [manager.publish("t", n, exclude=f"sender {n}") for n in range(10)]
        for publish in pending:
            await publish
        await reader.assert_received(*range(10))
        assert len(writes) == 1


async def test_publish_without_exclusion_asks_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("delivery looked for an excluded connection")

    monkeypatch.setattr(Senders, "excluded", fail)
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/alice") as alice:
        await alice.subscribe("t")
        await manager.publish("t", "for all")
        await alice.assert_received("for all")


# -- in a replay


@pytest.mark.parametrize("knows_itself", [True, False], ids=["client id", "no client id"])
async def test_replay_excludes_sender_with_client_id(knows_itself: bool) -> None:
    """On another node, and from the broker instead of a cache. Without a client id the sender is not recognised."""
    _, first_app = chat("memory://replay")
    later, second_app = chat("memory://replay")
    hello = {"client_id": CLIENT_ID} if knows_itself else {}
    async with serve(first_app) as first:
        async with Client.open(f"{first.url}/ws/alice") as alice:
            cursor = await say_hello(alice, "t", **hello)
            await alice.request(type="send", topic="t", data="mine", echo=False)
            await alice.request(type="send", topic="t", data="for all")
        async with serve(second_app) as second:
            async with Client.open(f"{second.url}/ws/alice") as alice:
                await say_hello(alice, "t", cursor=cursor, **hello)
                assert await receive_replay(alice) == (["for all"] if knows_itself else ["mine", "for all"])
                await later.publish("t", "live")
                await alice.assert_received("live")
            async with Client.open(f"{second.url}/ws/bob") as bob:
                await say_hello(bob, "t", cursor=cursor, client_id=CLIENT_ID + "-bob")
                assert await receive_replay(bob) == ["mine", "for all", "live"]


async def test_replay_excludes_connection_id() -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/alice") as alice:
            cursor = await say_hello(alice, "t")
        await manager.publish("t", "not for alice", exclude="alice")
        await manager.publish("t", "for all")
        for conn_id, expected in (("alice", ["for all"]), ("bob", ["not for alice", "for all"])):
            async with Client.open(f"{server.url}/ws/{conn_id}") as client:
                await say_hello(client, "t", cursor=cursor)
                assert await receive_replay(client) == expected


async def test_closed_connection_keeps_its_name() -> None:
    """A message about the end of a connection is not replayed to its client."""
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/alice") as alice, Client.open(f"{server.url}/ws/bob") as bob:
            await bob.subscribe("t")
            cursor = await say_hello(alice, "t", client_id=CLIENT_ID)
            connection = only(manager, "alice")
            await manager.publish("t", "builds the index", exclude=connection)
            await alice.close()
            await connection.close()
            assert not manager._runtime.senders._clients, "the index contains open connections only"
            await manager.publish("t", "alice left", exclude=connection)
            await bob.assert_received("builds the index", "alice left")
        async with Client.open(f"{server.url}/ws/alice") as alice:
            await say_hello(alice, "t", cursor=cursor, client_id=CLIENT_ID)
            assert await receive_replay(alice) == []


async def test_history_contains_excluded_messages() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/alice") as alice:
        await alice.request(type="send", topic="t", data="mine", echo=False)
        reply = await alice.request(type="history", topic="t", limit=9)
        assert [message["data"] for message in reply["messages"]] == ["mine"]
        assert [message.data for message in await manager.history("t")] == ["mine"]


# -- the Python client


async def test_python_client_publishes_without_echo() -> None:
    async with serve_two_nodes("memory://python") as (first, second):
        async with (
            reconnecting(f"{first.url}/ws/alice") as alice,
            reconnecting(f"{second.url}/ws/bob") as bob,
            alice.subscribe("t") as mine,
            bob.subscribe("t") as theirs,
            alice.inbox() as broadcasts,
        ):
            await alice.publish("t", "not for alice", echo=False)
            await alice.broadcast("nor this", echo=False)
            await alice.broadcast("for all")
            await bob.publish("t", "for all")
            assert await receive_data(mine, 1) == ["for all"]
            assert await receive_data(broadcasts, 1) == ["for all"]
            assert await receive_data(theirs, 2) == ["not for alice", "for all"]
