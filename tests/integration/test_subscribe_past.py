"""`subscribe` with `last` or a cursor on real nodes, on the wire."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.apps import chat, chat_app
from support.log_brokers import PlainBroker
from support.resume import connect, receive_replay, slow_node
from support.servers import HANG_S, Client, serve

from dws_core import Connection, History, Limits, WebSocketManager
from dws_core._log.records import GapReason, Head
from dws_core._node.runtime import NodeRuntime


async def past(client: Client, number: object) -> list[Any]:
    """Return the data of the messages up to the end of a replay, gaps as their reasons, and other messages in a list."""
    found: list[Any] = []
    while (frame := await client.receive())["type"] != "replayed":
        data = frame["reason"] if frame["type"] == "gap" else frame["data"]
        found.append(data if frame.get("replay") == number else [data])
    assert frame["id"] == number
    return found


@pytest.mark.parametrize("cached", [True, False], ids=["from-cache", "from-broker"])
async def test_past_is_followed_by_live_messages(cached: bool) -> None:
    broker, _, app = slow_node("past past", partitions=4)
    _, manager, first = slow_node("past past", partitions=4)
    async with serve(first), AsyncExitStack() as stack:
        if cached:
            server = await stack.enter_async_context(serve(app))
        receipts = []
        for n in range(6):
            receipts.append((await manager.publish("room", n))[0])
            await manager.publish("elsewhere", "foreign")
        if not cached:
            server = await stack.enter_async_context(serve(app))
        client = await stack.enter_async_context(Client.open(f"{server.url}/ws/me"))
        await connect(client, "other")
        ack = await client.exchange(type="subscribe", topic="room", last=4, id=7)
        partition, epoch, offset = ack["cursor"].split(":")
        assert ack == {"type": "ack", "id": 7, "cursor": ack["cursor"], "recovered": True}
        assert epoch == receipts[2].epoch
        assert int(offset) == (receipts[2].offset or 0) - 1, "the position before the first of what follows"
        first_message = await client.receive()
        position = f"{partition}:{receipts[2].epoch}:{receipts[2].offset}"
        assert first_message == {"type": "message", "topic": "room", "data": 2, "pos": position, "replay": 7}
        assert await past(client, 7) == [3, 4, 5]
        await manager.publish("room", 6)
        live = await client.receive()
        assert (live["data"], "replay" in live) == (6, False)
        assert bool(broker.reads) is not cached


async def test_end_of_past_has_cursor_of_all_filters() -> None:
    """A client that reconnects with it misses nothing and receives nothing twice."""
    _, manager, app = slow_node(partitions=8)
    topics = [f"t{n}" for n in range(6)]
    async with serve(app) as server:
        for topic in topics:
            await manager.publish(topic, "past")
        async with Client.open(f"{server.url}/ws/me") as client:
            await connect(client, *topics[:2])
            for topic in topics[2:]:
                await client.send(type="subscribe", topic=topic, last=1, id=topic)
                frames = [await client.receive() for _ in range(3)]
                assert [frame["type"] for frame in frames] == ["ack", "message", "replayed"]
        for topic in topics:
            await manager.publish(topic, f"{topic} missed")
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await connect(client, *topics, cursor=frames[-1]["cursor"]))["recovered"] is True
            assert sorted(await receive_replay(client)) == [f"{topic} missed" for topic in topics]


async def test_subscribe_with_cursor_next_to_other_filters() -> None:
    """The other filters use the same partition. Broadcasts are not part of the past."""
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        cursor = (await connect(client, "t"))["cursor"]
        await manager.publish("t", 1)
        await manager.broadcast("all")
        assert [(await client.receive())["data"] for _ in range(2)] == [1, "all"]
        for number, filter_ in enumerate(("t", "+", "u")):
            answer = await client.exchange(type="subscribe", topic=filter_, id=number, cursor=cursor)
            assert answer == {"type": "ack", "id": number, "cursor": cursor, "recovered": True}
            assert await past(client, number) == ([] if filter_ == "u" else [1])


async def test_other_filters_continue_during_replay() -> None:
    broker, _, app = slow_node("past others")
    _, manager, first = slow_node("past others")
    async with serve(first):
        await manager.publish("t", 1)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            await connect(client, "u", "+/both")
            broker.may_read.clear()
            await client.send(type="subscribe", topic="t", last=5, id=1)
            await client.send(type="ping", id=2)
            await asyncio.wait_for(broker.reading.wait(), HANG_S)
            await manager.publish("t", 2)
            await manager.publish("u", "live")
            assert (await client.receive())["data"] == "live"
            broker.may_read.set()
            assert (await client.receive())["type"] == "ack"
            assert await past(client, 1) == [1, 2]
            assert (await client.receive())["type"] == "pong"


async def test_message_of_two_filters_arrives_in_replay_and_live() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        await connect(client, "#")
        await manager.publish("t", 1)
        assert (await client.receive())["data"] == 1
        await client.exchange(type="subscribe", topic="t", last=5, id="past")
        assert await past(client, "past") == [1], "although another filter has delivered it"
        await manager.publish("t", 2)
        assert (await client.receive())["data"] == 2
        assert (await client.exchange(type="ping"))["type"] == "pong", "and only once"


async def test_last_is_limited_by_history_of_topic() -> None:
    manager, app = chat(history={"short": History(size=2), "none": History.none()})
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        for n in range(5):
            await manager.publish("short", n)
            await manager.publish("none", n)
        for number, (topic, expected) in enumerate({"short": [3, 4], "none": [], "empty": []}.items()):
            answer = await client.exchange(type="subscribe", topic=topic, last=50, id=number)
            assert answer["recovered"] is True, topic
            assert await past(client, number) == expected, topic
            await manager.publish(topic, "new")
            assert (await client.receive())["data"] == "new"


# -- changes during the replay


def slow_reader(port: int) -> socket.socket:
    """Return a socket with a small receive buffer."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    reader.setblocking(False)
    reader.connect_ex(("127.0.0.1", port))
    return reader


async def test_unsubscribe_ends_replay() -> None:
    manager, app = chat()
    async with serve(app) as server:
        for n in range(200):
            await manager.publish("t", f"{n} " + "x" * 5_000)
        reader = slow_reader(server.port)
        async with Client.open(f"{server.url}/ws/me", sock=reader, max_queue=1, compression=None) as client:
            await client.send(type="subscribe", topic="t", last=200, id=1)
            await client.send(type="unsubscribe", topic="t", id=2)
            frames = [await client.receive()]
            while frames[-1].get("id") != 2:
                frames.append(await client.receive())
            assert len(frames) < 150
            assert manager.active_connections[0].topics == set()
            await manager.publish("t", "new")
            await client.send(type="ping", id=3)
            frame = await client.receive()
            assert frame.get("id") == 3, ("nothing of the replay follows", {**frame, "data": None})
            await client.send(type="subscribe", topic="t", last=1, id=1)
            assert (await client.receive())["type"] == "ack", "the id may be used again"


async def test_filter_in_replay_is_filter_of_connection() -> None:
    """It counts against the limit, and two replays of it do not disturb each other."""
    broker, node, app = slow_node("past two", limits=Limits(filters=1))
    _, manager, first = slow_node("past two")
    async with serve(first), serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        receipt = (await manager.publish("t", 1))[0]
        broker.sink.close_gate()
        await manager.publish("t", 2)
        ahead = f"0:{receipt.epoch}:{(receipt.offset or 0) + 1}"
        for number in (1, 2):  # this node has not received message 2, so that these replays do not end
            answer = await client.exchange(type="subscribe", topic="t", cursor=ahead, id=number)
            assert answer["recovered"] is True
        again = await client.exchange(type="subscribe", topic="t", cursor=ahead, id=2)
        assert (again["code"], "replay in progress" in again["message"]) == ("invalid-message", True)
        assert (await client.exchange(type="subscribe", topic="u", last=1, id=3))["code"] == "too-many-filters"
        assert node.active_connections[0].topics == {"t"}
        await manager.publish("t", 3)
        broker.sink.open_gate()
        frames = [await client.receive() for _ in range(4)]
        kinds = [(frame["type"], frame.get("replay") or frame["id"]) for frame in frames]
        assert [kind for kind in kinds if kind[1] == 1] == [("message", 1), ("replayed", 1)]
        assert [kind for kind in kinds if kind[1] == 2] == [("message", 2), ("replayed", 2)]
        await manager.publish("t", 4)
        assert (await client.receive())["data"] == 4
        assert (await client.exchange(type="ping"))["type"] == "pong"


async def test_connection_closed_during_replay_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    manager, app = chat()
    closed, on_closed = asyncio.Event(), NodeRuntime.on_closed

    def noticed(self: NodeRuntime, connection: Connection) -> None:
        on_closed(self, connection)
        closed.set()

    monkeypatch.setattr(NodeRuntime, "on_closed", noticed)
    async with serve(app) as server:
        for n in range(200):
            await manager.publish("t", f"{n} " + "x" * 5_000)
        reader = slow_reader(server.port)
        async with Client.open(f"{server.url}/ws/me", sock=reader, max_queue=1, compression=None) as client:
            await client.send(type="subscribe", topic="t", last=200, id=1)
            assert (await client.receive())["type"] == "ack"
            assert len(manager._runtime.replays) == 1
            client.socket.transport.abort()
            await asyncio.wait_for(closed.wait(), HANG_S)
        assert len(manager._runtime.replays) == 0
        assert manager.stats().filters == 0


async def test_application_can_remove_filter_in_replay() -> None:
    broker, node, app = slow_node("past removed")
    _, manager, first = slow_node("past removed")
    async with serve(first):
        receipt = (await manager.publish("t", 1))[0]
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            broker.sink.close_gate()
            await manager.publish("t", 2)
            ahead = f"0:{receipt.epoch}:{(receipt.offset or 0) + 1}"
            await client.exchange(type="subscribe", topic="t", cursor=ahead, id=1)
            node.active_connections[0].topics.discard("t")
            broker.sink.open_gate()
            await manager.publish("t", 3)
            assert (await client.exchange(type="ping"))["type"] == "pong"


async def test_filter_removed_before_its_answer_is_refused() -> None:
    """Its replay waits for that of another filter. The client may subscribe again."""
    broker, node, app = slow_node("past removed early")
    _, manager, first = slow_node("past removed early")
    async with serve(first):
        receipt = (await manager.publish("t", 1))[0]
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            broker.sink.close_gate()
            await manager.publish("t", 2)
            ahead = f"0:{receipt.epoch}:{(receipt.offset or 0) + 1}"
            await client.exchange(type="subscribe", topic="t", cursor=ahead, id=1)
            (connection,) = node.active_connections
            async with node._runtime.replays._all[connection][1].turn:
                await client.send(type="subscribe", topic="u", last=1, id=2)
                async with asyncio.timeout(HANG_S):
                    while "u" not in connection.topics:  # noqa: ASYNC110 -- filters have no event
                        await asyncio.sleep(0)
                connection.topics.discard("u")
            refused = await client.receive()
            assert (refused["id"], refused["code"], refused["temporary"]) == (2, "unavailable", True)
            broker.sink.open_gate()


# -- refusals and gaps


async def test_request_for_past_is_checked() -> None:
    def authorize(principal: object, action: str, subject: str) -> bool:
        return (action, subject) not in {("history", "live-only"), ("subscribe", "secret")}

    manager, app = chat(authorize=authorize)
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        cursor = (await connect(client))["cursor"]
        requests: list[tuple[str, dict[str, Any]]] = [
            ("invalid-message", {"topic": "t/#", "last": 5}),
            ("invalid-message", {"topic": "t/+", "last": 5}),
            ("invalid-message", {"topic": "t", "last": 0}),
            ("invalid-message", {"topic": "t", "last": 5, "cursor": cursor}),
            ("invalid-message", {"topic": "t", "cursor": "x"}),
            ("forbidden", {"topic": "live-only", "last": 5}),
            ("forbidden", {"topic": "secret", "last": 5}),
            ("forbidden", {"topic": "secret", "cursor": cursor}),
            ("forbidden", {"topic": "$all", "last": 5}),
        ]
        for code, members in requests:
            refused = await client.exchange(type="subscribe", id=1, **members)
            assert (refused["code"], refused["id"]) == (code, 1), members
        await client.send(type="subscribe", topic="t", last=5)
        assert "needs an id" in (await client.receive())["message"]
        assert manager.active_connections[0].topics == set()
        assert (await client.exchange(type="subscribe", topic="live-only", id=1))["type"] == "ack"


async def test_cursor_that_cannot_be_recovered_is_gap_of_filter() -> None:
    manager, app = chat(limits=Limits(replay_messages=5))
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        cursor = (await connect(client, "other"))["cursor"]
        for n in range(6):
            await manager.publish("t", n)
        for number, (begin, reason) in enumerate({"0:gone:0": "epoch", cursor: "too-many"}.items()):
            answer = await client.exchange(type="subscribe", topic="t", id=number, cursor=begin)
            assert answer["recovered"] is False
            gap = await client.receive()
            assert gap == {
                "type": "gap", "filters": ["t"], "reason": reason, "cursor": answer["cursor"], "replay": number,
            }  # fmt: skip
            assert await past(client, number) == []
            await manager.publish("t", "new")
            assert (await client.receive())["data"] == "new"


async def test_lost_place_during_replay_is_gap_in_its_place() -> None:
    broker, manager, app = slow_node()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        receipt = (await manager.publish("t", 1))[0]
        await connect(client, "other")
        broker.sink.close_gate()
        await manager.publish("t", 2)
        ahead = f"0:{receipt.epoch}:{(receipt.offset or 0) + 1}"
        assert (await client.exchange(type="subscribe", topic="t", cursor=ahead, id=1))["recovered"] is True
        head = Head(partition=0, epoch="new", offset=40)
        broker.sink._held.clear()
        broker.sink.open_gate()
        broker.sink.on_discontinuity(0, GapReason.TRIMMED, head)
        frames = [await client.receive() for _ in range(3)]
    assert [(frame["type"], frame.get("filters"), frame.get("replay")) for frame in frames] == [
        ("gap", ["other"], None), ("gap", ["t"], 1), ("replayed", None, None),
    ]  # fmt: skip
    assert frames[2]["cursor"] == "0:new:40"


async def test_broker_without_log_has_no_past() -> None:
    manager = WebSocketManager("chat", broker=PlainBroker())
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/me") as client:
        for number, members in enumerate(({"last": 5}, {"cursor": "0:e:5"})):
            answer = await client.exchange(type="subscribe", topic="t", id=number, **members)
            assert answer == {"type": "ack", "id": number, "cursor": "", "recovered": False}
            gap = await client.receive()
            assert (gap["type"], gap["filters"], gap["replay"], gap["cursor"]) == ("gap", ["t"], number, "")
            assert await client.receive() == {"type": "replayed", "id": number, "cursor": ""}
        await manager.publish("t", 1)
        assert (await client.receive())["data"] == 1


async def test_unreadable_broker_refuses_last_temporarily() -> None:
    broker, _, app = slow_node("past away")
    _, manager, first = slow_node("past away")
    async with serve(first):
        await manager.publish("t", 1)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            broker.unavailable = True
            refused = await client.exchange(type="subscribe", topic="t", last=5, id=1)
            assert (refused["code"], refused["temporary"]) == ("unavailable", True)
            broker.unavailable = False
            assert (await client.exchange(type="subscribe", topic="t", last=5, id=1))["recovered"] is True
            assert await past(client, 1) == [1]
