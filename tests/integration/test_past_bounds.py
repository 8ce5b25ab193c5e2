"""The cost of `subscribe` with a past is bounded, and a slow reader of it disturbs nobody."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.apps import chat
from support.cost import cpu_time, memory
from support.raw_client import TEXT, RawClient
from support.resume import connect, slow_node
from support.servers import HANG_S, Client, serve

from dws_core import Connection, Limits
from dws_core._node.runtime import NodeRuntime

OURS = "dws_core.server:WebSocketProtocol"


def small_window(port: int) -> socket.socket:
    """Return a socket whose reader is slow: its receive buffer is small."""
    window = socket.socket()
    window.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    window.setblocking(False)
    window.connect_ex(("127.0.0.1", port))
    return window


async def replay_of(client: Client, number: object) -> list[Any]:
    """Return the data of a replay. Frames of others are dropped."""
    found: list[Any] = []
    while (frame := await client.receive())["type"] != "replayed" or frame["id"] != number:
        if frame.get("replay") == number:
            found.append(frame["data"])
    return found


async def test_clients_opening_same_topic_share_search() -> None:
    broker, _, app = slow_node("past storm")
    _, manager, first = slow_node("past storm")
    async with serve(first), AsyncExitStack() as stack:
        for n in range(20):
            await manager.publish("t", n)
        server = await stack.enter_async_context(serve(app))
        clients = [await stack.enter_async_context(Client.open(f"{server.url}/ws/{n}")) for n in range(30)]
        broker.may_read.clear()
        for client in clients:
            await client.send(type="subscribe", topic="t", last=5, id=1)
        await asyncio.wait_for(broker.reading.wait(), HANG_S)
        async with Client.open(f"{server.url}/ws/other") as other:
            for _ in range(30):
                await other.exchange(type="ping")
        await manager.publish("t", 20)
        broker.may_read.set()
        for client in clients:
            assert await replay_of(client, 1) == [15, 16, 17, 18, 19, 20]
    assert len(broker.reads) < 10


async def test_failed_search_is_reported_to_all_and_repeated() -> None:
    broker, _, app = slow_node("past failed")
    _, manager, first = slow_node("past failed")
    async with serve(first), AsyncExitStack() as stack:
        await manager.publish("t", 1)
        server = await stack.enter_async_context(serve(app))
        clients = [await stack.enter_async_context(Client.open(f"{server.url}/ws/{n}")) for n in range(3)]
        broker.may_read.clear()
        broker.unavailable = True
        for client in clients:
            await client.send(type="subscribe", topic="t", last=5, id=1)
        await asyncio.wait_for(broker.reading.wait(), HANG_S)
        broker.may_read.set()
        for client in clients:
            assert (await client.receive())["code"] == "unavailable"
        broker.unavailable = False
        await clients[0].send(type="subscribe", topic="t", last=5, id=2)
        assert await replay_of(clients[0], 2) == [1]


async def test_past_has_byte_limit() -> None:
    """The newest messages that fit are sent, as in a reply to `history`."""
    manager, app = chat(limits=Limits(history_bytes=100_000))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        for number in range(40):
            await manager.publish("t", f"{number:02}" + "x" * 10_000)
        await client.send(type="subscribe", topic="t", last=300, id=1)
        assert [int(data[:2]) for data in await replay_of(client, 1)] == list(range(31, 40))


@pytest.mark.parametrize(("begin", "requests"), [("last", 12), ("cursor", 2)])
async def test_past_counts_against_rate(begin: str, requests: int) -> None:
    """A small past counts as one message, and a request with a cursor as eleven."""
    manager, app = chat(limits=Limits(messages_per_s=0.001, burst=13))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        cursor = (await connect(client))["cursor"]
        await manager.publish("t", 1)
        refused = None
        for number in range(13):
            members = {"last": 1} if begin == "last" else {"cursor": cursor}
            await client.send(type="subscribe", topic="t", id=number, **members)
            if (frame := await client.receive())["type"] == "error":
                refused = refused or (number, frame["code"], frame["temporary"])
                continue
            assert await replay_of(client, number) == [1]
            await client.exchange(type="unsubscribe", topic="t", id="u") if begin == "cursor" else None
    assert refused is not None
    assert refused[1:] == ("rate-limited", True)
    assert refused[0] <= requests


async def test_large_past_counts_for_bytes_read() -> None:
    manager, app = chat(limits=Limits(messages_per_s=0.001, burst=12))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a", max_size=None) as client:
        await manager.publish("t", "x" * 300_000)
        for number in range(3):
            await client.send(type="subscribe", topic="t", last=1, id=number)
            assert len(await replay_of(client, number)) == 1
        await client.send(type="subscribe", topic="t", last=1, id=3)
        assert (await client.receive())["code"] == "rate-limited"


@pytest.mark.parametrize("ws", [OURS, "websockets-sansio"])
async def test_slow_reader_of_many_pasts_is_not_closed(ws: str) -> None:
    """Its replays take turns, and others are served in between. The outbox has room for one step."""
    manager, app = chat(limits=Limits(outbox_bytes=65_536, messages_per_s=None))
    topics, text = [f"t{n}" for n in range(12)], "x" * 8_000
    async with serve(app, ws=ws) as server, Client.open(f"{server.url}/ws/other") as other:
        await other.subscribe("live")
        for n in range(40):
            for topic in topics:
                await manager.publish(topic, f"{n} {text}")
        url, window = f"{server.url}/ws/me", small_window(server.port)
        async with Client.open(url, sock=window, max_queue=1, compression=None) as client:
            for topic in topics:
                await client.send(type="subscribe", topic=topic, last=40, id=topic)
            for _ in range(20):
                await manager.publish("live", 1)
                assert (await other.receive())["data"] == 1
            assert 0 < len(manager._runtime.replays) <= 8
            found: dict[str, list[int]] = {topic: [] for topic in topics}
            ended = 0
            while ended < len(topics):
                frame = await client.receive()
                ended += frame["type"] == "replayed"
                if frame["type"] == "message":
                    found[frame["replay"]].append(int(frame["data"].split()[0]))
        assert found == {topic: list(range(40)) for topic in topics}
        assert manager.stats().overflows == 0


async def test_past_that_nobody_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(read_stall_s=0.2, close_timeout_s=0.2, handler_grace_s=0, history_bytes=None)
    manager, app = chat(limits=limits)
    closed, on_closed = asyncio.Event(), NodeRuntime.on_closed

    def noticed(self: NodeRuntime, connection: Connection) -> None:
        on_closed(self, connection)
        closed.set()

    monkeypatch.setattr(NodeRuntime, "on_closed", noticed)
    async with serve(app, ws=OURS, ws_per_message_deflate=False) as server:
        for _ in range(200):
            await manager.publish("t", "x" * 60_000)
        async with RawClient.open(f"{server.url}/ws/bad", receive_buffer=4096) as bad:
            bad.send(TEXT, b'{"type": "subscribe", "topic": "t", "last": 200, "id": 1}')
            await asyncio.wait_for(closed.wait(), HANG_S)
            assert len(manager._runtime.replays) == 0
            assert not manager.active_connections


async def test_opening_topic_with_long_past_has_bounded_cost() -> None:
    """Twenty requests for the longest past, in time and in memory."""
    manager, app = chat(limits=Limits(messages_per_s=None))
    async with serve(app, ws=OURS) as server, Client.open(f"{server.url}/ws/a", max_size=None) as client:
        for _ in range(30):
            await manager.publish("full", "x" * 30_000)

        async def requests(count: int) -> None:
            for number in range(count):
                await client.send(type="subscribe", topic="full", last=10**9, id=number)
            for number in range(count):
                while (await client.receive()).get("id") != number:
                    pass

        await requests(1)
        with cpu_time() as cost:
            await requests(20)
        assert cost.cpu_s < 2.0
        with memory() as cost:
            await requests(3)
        assert cost.peak_bytes < 30_000_000
