"""Resuming on real nodes, on the wire: `connect`, gaps and `pos`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.apps import chat, chat_app
from support.log_brokers import PlainBroker
from support.resume import connect, offset_of, receive_replay, slow_node
from support.servers import HANG_S, Client, serve

from dws_core import Limits, WebSocketManager
from dws_core._log.partition import partition_of
from dws_core._log.records import GapReason, Head, Layout

_LAYOUT = Layout(channel="chat", partitions=8)


# -- from node to node


@pytest.mark.parametrize("filter_", ["room/1", "room/+", "#"])
async def test_client_changing_nodes_receives_missed_and_new(filter_: str) -> None:
    manager, first = chat("memory://hop")
    _, second = chat("memory://hop")
    async with serve(first) as a:
        async with Client.open(f"{a.url}/ws/me") as client:
            connected = await connect(client, filter_)
            assert connected == {
                "type": "connected", "id": "hello", "conn_id": "me", "cursor": connected["cursor"],
                "ping_s": connected["ping_s"],
            }  # fmt: skip
            await manager.publish("room/1", 1)
            cursor = (await client.receive())["pos"]
        for n in range(2, 5):
            await manager.publish("room/1", n)
            if filter_ != "#":
                await manager.publish("elsewhere", "foreign")
        async with serve(second) as b, Client.open(f"{b.url}/ws/me") as client:
            answer = await connect(client, filter_, cursor=cursor)
            assert answer["recovered"] is True
            assert answer["cursor"] == cursor, "the position before the first of what follows"
            assert await receive_replay(client) == [2, 3, 4]
            await manager.publish("room/1", 5)
            assert (await client.receive())["data"] == 5


async def test_broadcasts_and_direct_messages_are_recovered() -> None:
    """The client subscribes to no filter."""
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client))["cursor"]
        await manager.broadcast("all")
        await manager.send_to("me", "you")
        await manager.send_to("another", "not you")
        await manager.publish("t", "no filter")
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await connect(client, cursor=cursor))["recovered"] is True
            frames = [await client.receive() for _ in range(3)]
    assert [(f.get("data"), f.get("conn_id")) for f in frames] == [("all", None), ("you", "me"), (None, None)]
    assert [f["type"] for f in frames] == ["message", "message", "pos"]


async def test_connection_lost_during_replay_loses_nothing() -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
        for n in range(10):
            await manager.publish("t", n)
        got: list[Any] = []
        for _ in range(4):
            async with Client.open(f"{server.url}/ws/me") as client:
                cursor = (await connect(client, "t", cursor=cursor))["cursor"]
                for _ in range(2):
                    frame = await client.receive()
                    cursor = frame["pos"]
                    got.append(frame["data"])
    assert got == list(range(8))


async def test_new_filter_starts_with_new_messages() -> None:
    _, manager, app = slow_node(partitions=8)
    there, elsewhere = _topics_in_different_partitions()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, there))["cursor"]
        await manager.publish(there, 1)
        await manager.publish(elsewhere, "before")
        async with Client.open(f"{server.url}/ws/me") as client:
            answer = await connect(client, there, elsewhere, cursor=cursor)
            assert answer["recovered"] is True
            assert len(answer["cursor"].split(",")) >= 2
            assert await receive_replay(client) == [1]
            await manager.publish(elsewhere, "after")
            assert (await client.receive())["data"] == "after"


async def test_msgpack_client_resumes() -> None:
    import msgspec

    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
        await manager.publish("t", {"n": 1})
        async with Client.open(f"{server.url}/ws/me", subprotocols=["dws.v1.msgpack"]) as client:
            data = {"filters": ["t"], "cursor": cursor}
            await client.socket.send(msgspec.msgpack.encode({"type": "connect", "data": data}))
            frames = [msgspec.msgpack.decode(await client.socket.recv()) for _ in range(3)]
    assert [frame["type"] for frame in frames] == ["connected", "message", "pos"]
    assert frames[1]["data"] == {"n": 1}


# -- gaps


async def _gap(client: Client, *filters: str, cursor: str) -> str:
    """Resume with a cursor that cannot be resumed, and return the gap's reason."""
    answer = await connect(client, *filters, cursor=cursor)
    assert answer["recovered"] is False
    gap = await client.receive()
    assert gap == {
        "type": "gap", "filters": sorted(filters), "reason": gap["reason"], "cursor": answer["cursor"],
    }  # fmt: skip
    reason: str = gap["reason"]
    return reason


async def test_cursor_of_other_epoch_or_layout_is_gap() -> None:
    manager, app = chat()
    async with serve(app) as server:
        await manager.publish("t", "old")
        for cursor, reason in (("0:gone:0", "epoch"), ("7:gone:0", "layout-changed")):
            async with Client.open(f"{server.url}/ws/me") as client:
                assert await _gap(client, "t", cursor=cursor) == reason
                await manager.publish("t", "new")
                assert (await client.receive())["data"] == "new"


async def test_replay_over_limit_is_too_many() -> None:
    manager, app = chat(limits=Limits(replay_messages=5))
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
        for n in range(6):
            await manager.publish("t", n)
        async with Client.open(f"{server.url}/ws/me") as client:
            assert await _gap(client, "t", cursor=cursor) == "too-many"
            await manager.publish("t", "new")
            assert (await client.receive())["data"] == "new", "and nothing of the past"


async def test_cursor_ahead_of_log_is_gap() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        receipt = (await manager.publish("t", 1))[0]
        assert await _gap(client, "t", cursor=f"0:{receipt.epoch}:99") == "ahead"


async def test_cursor_ahead_of_node_waits_without_duplicates() -> None:
    broker, _, app = slow_node("lag")
    _, manager, fast = slow_node("lag")
    async with serve(fast) as b, serve(app) as a:
        broker.sink.close_gate()
        async with Client.open(f"{b.url}/ws/me") as client:
            await connect(client, "t")
            for n in range(3):
                await manager.publish("t", n)
            cursor = [(await client.receive())["pos"] for _ in range(3)][-1]
        async with Client.open(f"{a.url}/ws/me") as client:
            answer = await connect(client, "t", cursor=cursor)
            assert (answer["recovered"], answer["cursor"]) == (True, cursor)
            await manager.publish("t", 3)
            broker.sink.open_gate()
            frames = [await client.receive() for _ in range(2)]
            assert [frame.get("data") for frame in frames] == [3, None]
            assert offset_of(frames[1]["cursor"]) == offset_of(cursor) + 1


async def test_discontinuity_is_sent_to_affected_connections() -> None:
    broker, manager, app = slow_node(partitions=8)
    there, elsewhere = _topics_in_different_partitions()
    number = partition_of(there, manager._settings.layout)
    async with serve(app) as server, AsyncExitStack() as stack:
        one, other, silent = [
            await stack.enter_async_context(Client.open(f"{server.url}/ws/{name}")) for name in ("one", "other", "s")
        ]
        await one.subscribe(there)
        await one.subscribe(elsewhere)
        await one.subscribe("+/nothing")
        await other.subscribe(elsewhere)
        await silent.exchange(type="ping")
        head = Head(partition=number, epoch="new", offset=40)
        broker.sink.on_discontinuity(number, GapReason.TRIMMED, head)
        gap = {
            "type": "gap",
            "filters": sorted(["+/nothing", there]),
            "reason": "trimmed",
            "cursor": f"{number}:new:40",
        }
        assert await one.receive() == gap
        assert (await silent.exchange(type="ping"))["type"] == "pong"
        frame = await other.exchange(type="ping")
        while frame["type"] == "gap":  # if $all belongs to that partition
            assert frame["filters"] == []
            frame = await other.receive()
        assert frame["type"] == "pong"
        async with Client.open(f"{server.url}/ws/late") as late:
            cursor = (await connect(late, there))["cursor"]
            assert f"{number}:new:40" in cursor.split(","), "the new baseline, before anything new has come"


async def test_discontinuity_before_reply_is_one_gap() -> None:
    broker, _, app = slow_node("late")
    _, manager, first = slow_node("late")
    async with serve(first):
        await manager.publish("t", 1)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            epoch = (await client.exchange(type="subscribe", topic="x", id=0))["cursor"].split(":")[1]
            broker.may_read.clear()
            await client.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{epoch}:0"})
            await asyncio.wait_for(broker.reading.wait(), HANG_S)
            broker.sink.on_discontinuity(0, GapReason.TRIMMED, Head(partition=0, epoch=epoch, offset=9))
            broker.may_read.set()
            await client.send(type="ping")
            frames = [await client.receive() for _ in range(3)]
    assert [(f["type"], f.get("cursor")) for f in frames] == [
        ("connected", f"0:{epoch}:9"), ("gap", f"0:{epoch}:9"), ("pong", None),
    ]  # fmt: skip


async def test_broker_without_history_is_unsupported_gap() -> None:
    manager = WebSocketManager("chat", broker=PlainBroker())
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/me") as client:
        assert await _gap(client, "t", cursor="0:e:5") == "unsupported"
        error = await client.exchange(type="history", topic="t", limit=5, id=1)
        assert (error["type"], error["code"]) == ("error", "unavailable")
        await manager.publish("t", 1)
        assert (await client.receive())["data"] == 1


# -- the rules of the messages


async def test_connect_is_atomic_and_allowed_once() -> None:
    def authorize(principal: object, action: str, subject: str) -> bool:
        return subject != "secret"

    manager, app = chat(authorize=authorize, limits=Limits(filters=2))
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        assert (await connect(client, "a", "secret"))["code"] == "forbidden"
        assert (await connect(client, "a", "b", "c"))["code"] == "too-many-filters"
        assert manager.active_connections[0].topics == set()
        assert (await connect(client, "a", "b"))["type"] == "connected"
        assert (await connect(client, "a"))["code"] == "invalid-message"
        assert manager.active_connections[0].topics == {"a", "b"}


async def test_filters_change_after_replay() -> None:
    broker, _, app = slow_node("order")
    _, manager, first = slow_node("order")
    async with serve(first):
        await manager.publish("t", 1)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            epoch = (await client.exchange(type="subscribe", topic="x", id=0))["cursor"].split(":")[1]
            broker.may_read.clear()
            await client.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{epoch}:0"})
            await client.send(type="subscribe", topic="u", id=2)
            await client.send(type="unsubscribe", topic="t", id=3)
            await asyncio.wait_for(broker.reading.wait(), HANG_S)
            await manager.publish("t", 2)
            broker.may_read.set()
            frames = [await client.receive() for _ in range(6)]
    kinds = [frame.get("data", frame["type"]) for frame in frames]
    assert kinds == ["connected", 1, 2, "pos", "ack", "ack"]


# -- pos


async def test_pos_keeps_cursor_of_quiet_topic_recent() -> None:
    manager, app = chat(limits=Limits(pos_interval_s=0.01, replay_messages=3))
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client, Client.open(f"{server.url}/ws/bare") as bare:
            await connect(client, "quiet")
            await bare.send(type="subscribe", topic="quiet")  # without an id it receives only messages
            receipts = [(await manager.publish("busy", n))[0] for n in range(10)]
            pos = await client.receive()
            while offset_of(pos["cursor"]) < (receipts[-1].offset or 0):
                pos = await client.receive()
            assert pos["type"] == "pos"
            assert (await bare.exchange(type="ping"))["type"] == "pong"
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await connect(client, "#", cursor=pos["cursor"]))["recovered"] is True
            assert await receive_replay(client) == []


async def test_stopping_node_sends_last_positions() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        await connect(client, "quiet")
        async with Client.open(f"{server.url}/ws/other") as other:
            await other.subscribe("busy")
            receipt = (await manager.publish("busy", 1))[0]
            await other.receive()
        await manager.shutdown()
        pos = await client.receive()
        assert (pos["type"], offset_of(pos["cursor"])) == ("pos", receipt.offset)
        assert (await client.wait_closed()).rcvd.code == 1012  # type: ignore[union-attr]


def _topics_in_different_partitions() -> tuple[str, str]:
    taken = {partition_of(topic, _LAYOUT) for topic in ("$all", "$conn/me", "$conn/one", "$conn/other")}
    free: dict[int, str] = {}
    for n in range(100):
        free.setdefault(partition_of(f"t{n}", _LAYOUT), f"t{n}")
    there, elsewhere = [topic for partition, topic in free.items() if partition not in taken][:2]
    return there, elsewhere
