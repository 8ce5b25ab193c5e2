"""Resuming under live traffic, with slow readers, and with many clients at once."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.apps import chat
from support.resume import connect, receive_replay, slow_node
from support.servers import HANG_S, Client, Server, serve

from dws_core import Limits

OURS = "dws_core.server:WebSocketProtocol"
BOTH = pytest.mark.parametrize("ws", [OURS, "websockets-sansio"], ids=["ready", "asgi"])


class Roamer:
    """A client that follows the protocol's two rules and loses its connection repeatedly."""

    def __init__(self, number: int, filters: tuple[str, ...], wanted: int) -> None:
        self.number = number
        self.filters = filters
        self.got: list[int] = []
        self.hops = 0
        self.started = asyncio.Event()
        self._wanted = wanted
        self._cursor: dict[str, str] | None = None

    async def roam(self, servers: list[Server]) -> None:
        """Move from node to node until all messages have arrived."""
        while len(self.got) < self._wanted:
            server = servers[(self.hops + self.number) % 2]
            async with Client.open(f"{server.url}/ws/r{self.number}") as client:
                await self._serve(client)
                client.socket.transport.abort()

    async def _serve(self, client: Client) -> None:
        cursor = None if self._cursor is None else ",".join(self._cursor.values())
        answer = await connect(client, *self.filters, cursor=cursor)
        assert answer.get("recovered", True) is True, await client.receive()
        self._cursor = {}
        self._merge(answer["cursor"])
        self.started.set()
        self.hops += 1
        for _ in range(5 + (self.hops * 7 + self.number * 3) % 23):
            if len(self.got) >= self._wanted:
                return
            frame = await client.receive()
            self._merge(frame["pos"] if frame["type"] == "message" else frame["cursor"])
            if frame["type"] == "message":
                self.got.append(frame["data"])

    def _merge(self, cursor: str) -> None:
        assert self._cursor is not None
        self._cursor |= {position.split(":")[0]: position for position in cursor.split(",")}


async def test_roaming_clients_receive_each_message_once() -> None:
    topics, total = [f"t/{n}" for n in range(5)], 600
    nodes = [slow_node("roam", partitions=4) for _ in range(2)]
    roamers = [
        Roamer(number, filters, total * len(found) // len(topics))
        for number, (filters, found) in enumerate(
            [(("#",), topics), (("t/#", "t/0"), topics), (("t/0",), topics[:1]), (("t/1", "t/3"), topics[:2])]
        )
    ]
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serve(app)) for _, _, app in nodes]
        async with asyncio.TaskGroup() as group:
            for roamer in roamers:
                group.create_task(roamer.roam(servers))
            for roamer in roamers:
                await asyncio.wait_for(roamer.started.wait(), HANG_S)
            for n in range(total):
                await nodes[n % 2][1].publish(topics[n % 5], n)
                if n % 5 == 0:
                    await asyncio.sleep(0)  # spread over the roamers' connections
    for roamer in roamers:
        for number, topic in enumerate(topics):
            got = [n for n in roamer.got if n % 5 == number]
            assert got in ([], list(range(number, total, 5))), topic
    assert all(roamer.hops > 3 for roamer in roamers)


async def test_messages_during_replay_follow_it_once() -> None:
    broker, _, app = slow_node("while")
    _, manager, first = slow_node("while")
    async with serve(first):
        for n in range(3):
            await manager.publish("t", n)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            async with Client.open(f"{server.url}/ws/other") as other:
                epoch = (await connect(other, "#"))["cursor"].split(":")[1]
                broker.may_read.clear()
                await client.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{epoch}:0"})
                await asyncio.wait_for(broker.reading.wait(), HANG_S)
                for n in range(3, 6):
                    await manager.publish("t", n)
                await manager.broadcast("all")
                assert [(await other.receive())["data"] for _ in range(4)] == [3, 4, 5, "all"], "others are served"
                broker.may_read.set()
                assert (await client.receive())["recovered"] is True
                assert await receive_replay(client) == [0, 1, 2, 3, 4, 5, "all"]
    assert len(broker.reads) == 1
    assert (broker.reads[0].since, broker.reads[0].until) == (0, 3)


async def test_clients_resuming_together_share_reads() -> None:
    broker, _, app = slow_node("storm")
    _, manager, first = slow_node("storm")
    count = 30
    async with serve(first):
        for n in range(20):
            await manager.publish("t", n)
        async with serve(app) as server, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client.open(f"{server.url}/ws/{n}")) for n in range(count)]
            epoch = (await clients[0].exchange(type="subscribe", topic="x", id=1))["cursor"].split(":")[1]
            broker.may_read.clear()
            for n, client in enumerate(clients):
                data = {"filters": ["t"] if n % 2 else ["#"], "cursor": f"0:{epoch}:{n % 20}"}
                await client.send(type="connect", data=data)
            await asyncio.wait_for(broker.reading.wait(), HANG_S)
            await manager.publish("t", "live")
            await _all_wait(server, count)
            broker.may_read.set()
            for n, client in enumerate(clients):
                assert (await client.receive())["recovered"] is True
                assert await receive_replay(client) == [*range(n % 20, 20), "live"]
    assert len(broker.reads) <= 3


async def _all_wait(server: Any, count: int) -> None:
    """Wait until the node has read the requests of all clients, by many round trips of another client."""
    async with Client.open(f"{server.url}/ws/last") as last:
        for _ in range(count):
            await last.exchange(type="ping")


async def test_pos_is_not_sent_before_replayed_messages() -> None:
    broker, _, app = slow_node("pos", limits=Limits(pos_interval_s=0.01))
    _, manager, first = slow_node("pos")
    async with serve(first):
        await manager.publish("t", 1)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            async with Client.open(f"{server.url}/ws/other") as other:
                epoch = (await connect(other, "x"))["cursor"].split(":")[1]
                broker.may_read.clear()
                await client.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{epoch}:0"})
                await asyncio.wait_for(broker.reading.wait(), HANG_S)
                for n in range(2):
                    await manager.publish("t", n + 2)
                    assert (await other.receive())["type"] == "pos", "the others hear of it"
                broker.may_read.set()
                assert (await client.receive())["type"] == "connected"
                assert await receive_replay(client) == [1, 2, 3]


def _small_window(port: int) -> socket.socket:
    """Return a connected socket with a small receive buffer."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


@BOTH
@pytest.mark.parametrize("outbox_bytes", [300_000, 20_000])
async def test_replay_waits_for_slow_reader(ws: str, outbox_bytes: int) -> None:
    limits = Limits(outbox_bytes=outbox_bytes, messages_per_s=None)
    manager, app = chat(limits=limits)
    text, past, total = "x" * 15_000, 250, 260
    async with serve(app, ws=ws) as server, Client.open(f"{server.url}/ws/other") as other:
        cursor = (await connect(other))["cursor"]
        for n in range(past):
            await manager.publish("t", f"{n} {text}")
        url, window = f"{server.url}/ws/me", _small_window(server.port)
        async with Client.open(url, sock=window, max_queue=1, compression=None) as client:
            await client.send(type="connect", data={"filters": ["t"], "cursor": cursor})
            await client.send(type="unsubscribe", topic="t", id="later")
            for n in range(past, total):
                await manager.publish("t", f"{n} {text}")
            for _ in range(200):  # time for a faulty node that does not wait for its reader
                await other.exchange(type="ping")
            assert (await client.receive())["recovered"] is True
            got = await receive_replay(client)
            assert [int(found.split(" ")[0]) for found in got] == list(range(total))
            assert (await client.receive())["id"] == "later"
