"""Clients that resume while the broker is unreachable wait, and lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from dws_memory import MemoryBroker
from support.apps import chat_app
from support.clients import Gaps, client, receive_data
from support.log_brokers import SlowBroker
from support.resume import connect, receive_replay, slow_node
from support.servers import HANG_S, Client, Server, serve

from dws_core import Limits, WebSocketManager
from dws_core._log.records import GapReason, Head
from dws_core._node.recovery import attach
from dws_core._node.requests.send_order import FENCE_S
from dws_core.plugin import BrokerUnavailable, Receipt
from dws_core.testing import FaultyBroker, serve_nodes

_numbers = count()


@dataclass
class Outage:
    """Two nodes. The second one is new, so that it must read from the broker, and cannot reach it."""

    broker: SlowBroker
    elsewhere: WebSocketManager
    manager: WebSocketManager
    server: Server
    epoch: str

    def end(self) -> None:
        """Let the second node reach the broker again."""
        self.broker.unavailable = False
        self.broker.sink.on_state("degraded", "the broker was unreachable")
        self.broker.sink.on_state("live", "the broker is back")

    async def until_waiting(self, number: int) -> None:
        """Wait until this number of requests waits for the broker."""
        await until_waiting(self.manager, number)


async def until_waiting(manager: WebSocketManager, number: int) -> None:
    async with asyncio.timeout(HANG_S):
        while manager.stats().waiting_resumes != number:  # noqa: ASYNC110 -- counters have no event
            await asyncio.sleep(0)


@asynccontextmanager
async def outage(**limits: Any) -> AsyncIterator[Outage]:
    name = f"outage-{next(_numbers)}"
    broker, manager, app = slow_node(name, limits=Limits(**limits))
    _, elsewhere, first = slow_node(name)
    async with serve(first):
        for number in range(3):
            await elsewhere.publish("t", number)
        async with serve(app) as server:
            broker.unavailable = True
            async with Client.open(f"{server.url}/ws/x") as x:
                epoch = (await connect(x))["cursor"].split(":")[1]
            yield Outage(broker, elsewhere, manager, server, epoch)


@pytest.mark.parametrize(("offset", "missed"), [(1, [1, 2]), (3, [])], ids=["read", "at-the-end"])
async def test_resume_during_outage_waits_and_recovers(offset: int, missed: list[int]) -> None:
    async with outage() as away, Client.open(f"{away.server.url}/ws/me") as me:
        await me.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{away.epoch}:{offset}"})
        if missed:
            await away.until_waiting(1)
            assert away.manager.health().waiting_resumes == 1
            away.end()
        answer = await me.receive()
        assert (answer["type"], answer["recovered"], answer["cursor"]) == (
            "connected",
            True,
            f"0:{away.epoch}:{offset}",
        )
        assert await receive_replay(me) == missed
        await away.elsewhere.publish("t", "new")
        assert (await me.receive())["data"] == "new"
        assert away.manager.stats().waiting_resumes == 0


async def test_cursor_ahead_of_node_waits_for_confirmation() -> None:
    async with outage() as away, Client.open(f"{away.server.url}/ws/me") as me:
        away.broker.sink.close_gate()
        receipt = (await away.elsewhere.publish("t", "seen elsewhere"))[0]
        await me.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{away.epoch}:{receipt.offset}"})
        await away.until_waiting(1)
        away.broker.sink.open_gate()
        away.end()
        assert (await me.receive())["recovered"] is True
        assert await receive_replay(me) == []


async def test_waiting_subscribe_recovers_after_outage() -> None:
    async with outage() as away, Client.open(f"{away.server.url}/ws/me") as me:
        await me.send(type="subscribe", topic="t", id=1, cursor=f"0:{away.epoch}:1")
        await away.until_waiting(1)
        away.end()
        assert (await me.receive())["recovered"] is True
        assert await receive_replay(me) == [1, 2]


async def test_messages_during_wait_follow_replay() -> None:
    """More of them than the node holds back are read from the log."""
    async with outage(outbox_bytes=2_000) as away, Client.open(f"{away.server.url}/ws/me") as me:
        await me.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{away.epoch}:1"})
        await away.until_waiting(1)
        for number in range(3, 50):
            await away.elsewhere.publish("t", number)
        away.end()
        assert (await me.receive())["recovered"] is True
        assert await receive_replay(me) == list(range(1, 50))


async def test_many_waiting_clients_cost_one_read() -> None:
    async with outage() as away, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.open(f"{away.server.url}/ws/{n}")) for n in range(30)]
        for me in clients:
            await me.send(type="connect", data={"filters": ["t"], "cursor": f"0:{away.epoch}:1"})
        await away.until_waiting(30)
        away.broker.reads.clear()
        away.end()
        for me in clients:
            assert (await me.receive())["recovered"] is True
            assert await receive_replay(me) == [1, 2]
        assert len(away.broker.reads) == 1


@pytest.mark.parametrize(
    "request_", [{"type": "connect", "data": {"filters": ["t"]}}, {"type": "subscribe", "topic": "t"}], ids=str
)
async def test_patience_that_ends_leaves_connection_open(request_: dict[str, Any]) -> None:
    async with outage(resume_patience_s=0.05, pos_interval_s=0.01) as away:
        async with Client.open(f"{away.server.url}/ws/me") as me:
            cursor = f"0:{away.epoch}:1"
            if request_["type"] == "connect":
                request_ = {"type": "connect", "data": {"filters": ["t"], "cursor": cursor}}
            else:
                request_ = {**request_, "cursor": cursor}
            error = await me.exchange(**request_, id=1)
            assert (error["type"], error["code"], error["temporary"], error["id"]) == ("error", "unavailable", True, 1)
            assert 0 < error["retry_in_s"] <= 5
            assert away.manager.active_connections[0].topics == set()
            await away.elsewhere.publish("t", 3)
            assert (await me.exchange(type="ping"))["type"] == "pong", "neither a message nor a pos"
            away.end()
            assert (await me.exchange(**request_, id=2))["recovered"] is True
            assert await receive_replay(me) == [1, 2, 3]


async def test_failed_resume_delivers_held_messages() -> None:
    """Messages of earlier filters and direct messages arrive as if there had been no request."""
    async with outage(resume_patience_s=0.5) as away, Client.open(f"{away.server.url}/ws/me") as me:
        await me.send(type="subscribe", topic="before")
        await me.send(type="connect", id=1, data={"filters": ["t"], "cursor": f"0:{away.epoch}:1"})
        await away.until_waiting(1)
        await away.elsewhere.publish("t", "not yet")
        await away.elsewhere.publish("before", "subscribed")
        await away.elsewhere.send_to("me", "direct")
        frames = [await me.receive() for _ in range(3)]
        assert [frame.get("data", frame["type"]) for frame in frames] == ["subscribed", "direct", "error"]


async def test_waiting_requests_are_bounded() -> None:
    async with outage(waiting_resumes=1) as away, AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(Client.open(f"{away.server.url}/ws/{n}")) for n in "ab"]
        data = {"filters": ["t"], "cursor": f"0:{away.epoch}:1"}
        await one.send(type="connect", data=data)
        await away.until_waiting(1)
        error = await other.exchange(type="connect", id=1, data=data)
        assert (error["code"], error["temporary"]) == ("unavailable", True)
        away.end()
        assert (await one.receive())["recovered"] is True
        assert (await other.exchange(type="connect", id=2, data=data))["recovered"] is True


async def test_disconnected_client_waits_no_longer() -> None:
    async with outage() as away:
        async with Client.open(f"{away.server.url}/ws/me") as me:
            await me.send(type="connect", data={"filters": ["t"], "cursor": f"0:{away.epoch}:1"})
            await away.until_waiting(1)
        await away.until_waiting(0)


@pytest.mark.parametrize("request_", ["connect", "subscribe"])
async def test_lost_place_of_node_ends_wait_with_gap(request_: str) -> None:
    async with outage(resume_patience_s=10 * HANG_S) as away, Client.open(f"{away.server.url}/ws/me") as me:
        cursor = f"0:{away.epoch}:1"
        if request_ == "connect":
            await me.send(type="connect", id=1, data={"filters": ["t"], "cursor": cursor})
        else:
            await me.send(type="subscribe", topic="t", id=1, cursor=cursor)
        await away.until_waiting(1)
        head = Head(partition=0, epoch="new", offset=4)
        away.broker.sink.on_discontinuity(0, GapReason.EPOCH, head)
        assert (await me.receive())["recovered"] is False
        assert (await me.receive())["reason"] == "epoch"


async def test_python_client_retries_refused_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its cursor, and reports no gap."""
    monkeypatch.setattr(attach, "_RETRY_IN_S", 0.01)
    gaps = Gaps()
    async with outage(resume_patience_s=0.02) as away:
        alice = client(f"{away.server.url}/ws/me", cursor=f"0:{away.epoch}:1", on_gap=gaps)
        messages = alice.subscribe("t")
        async with asyncio.TaskGroup() as group:
            entering = group.create_task(alice.__aenter__())
            for count in (1, 0, 1, 0, 1):
                await away.until_waiting(count)
            assert not entering.done()
            away.end()
        async with alice:
            assert await receive_data(messages, 2) == [1, 2]
    assert gaps == []


async def test_client_changing_nodes_during_outage_has_no_gap() -> None:
    """Its cursor is ahead of the second node, which cannot reach the broker."""
    managers: list[WebSocketManager] = []

    def make_app(broker: FaultyBroker) -> Any:
        managers.append(WebSocketManager("chat", broker=broker))
        return chat_app(managers[-1])

    async with serve_nodes(make_app) as (one, two), AsyncExitStack() as stack:
        me = await stack.enter_async_context(Client.open(f"{one.url}/ws/me"))
        moved = await stack.enter_async_context(Client.open(f"{two.url}/ws/me"))
        await connect(me, "t")
        async with two.broker.unreachable():
            await managers[0].publish("t", 1)
            data = {"filters": ["t"], "cursor": (await me.receive())["pos"]}
            await moved.send(type="connect", id=1, data=data)
            await until_waiting(managers[1], 1)
            await managers[0].publish("t", 2)
        assert (await moved.receive())["recovered"] is True
        assert await receive_replay(moved) == [2]


class Failing(MemoryBroker):
    """A broker that fails a number of publishes, or leaves them without an outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[asyncio.Future[Receipt]] = []
        self.orders: list[object] = []
        self.hold = False

    def publish(self, *args: Any, order: object = None, **options: Any) -> asyncio.Future[Receipt]:
        self.orders.append(order)
        if not self.hold:
            return super().publish(*args, order=order, **options)
        self.pending.append(asyncio.get_running_loop().create_future())
        return self.pending[-1]


async def test_sends_after_failure_are_refused_until_repeat() -> None:
    """They arrive while the error of an earlier one is on its way to the client."""
    broker = Failing()
    manager = WebSocketManager("chat", broker=broker)
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/me") as me:
        await me.subscribe("t")
        broker.hold = True
        await me.send(type="send", topic="t", data=1, id=1, key="a")
        await me.exchange(type="ping")
        broker.hold = False
        broker.pending[0].set_exception(BrokerUnavailable("away"))
        assert (await me.receive())["code"] == "unavailable"
        late = await me.exchange(type="send", topic="t", data=2, id=2, key="b")
        assert (late["type"], late["code"], late["temporary"]) == ("error", "unavailable", True)
        assert 0 < late["retry_in_s"] <= FENCE_S
        for number, key in ((1, "a"), (2, "b")):
            await me.send(type="send", topic="t", data=number, id=10 + number, key=key)
        frames = [await me.receive() for _ in range(4)]
        assert [frame["data"] for frame in frames if frame["type"] == "message"] == [1, 2]
    assert len({id(order) for order in broker.orders}) == 1
    assert broker.orders[0] is not None, "the broker fails the later ones of the same connection"


async def test_python_client_keeps_order_through_outage() -> None:
    async with serve_nodes(lambda broker: chat_app(WebSocketManager("chat", broker=broker))) as (one, two):
        async with client(f"{one.url}/ws/me") as alice, client(f"{two.url}/ws/bob") as bob:
            async with bob.subscribe("t") as messages, asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(alice.publish("t", number))
                    if number % 10 == 5:
                        async with one.broker.unreachable():
                            for later in range(100 * number, 100 * number + 3):
                                group.create_task(alice.publish("t", later))
                            await bob.publish("other", number)
                expected = [
                    n
                    for number in range(30)
                    for n in (number, *(range(100 * number, 100 * number + 3) if number % 10 == 5 else ()))
                ]
                assert await receive_data(messages, len(expected)) == expected
