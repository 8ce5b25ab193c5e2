"""A node that is stopped and started again is a new one; a start that fails leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import pytest
from dws_memory import MemoryBroker
from support.apps import chat, chat_app
from support.resume import hello, missed, slow
from support.servers import HANG_S, Client, serve

from dws_core import BrokerError, BrokerUnavailable, Principal, WebSocketManager
from dws_core.plugin import BrokerMisconfigured, Head

_T = TypeVar("_T")


def _spawn(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    return asyncio.get_running_loop().create_task(coroutine)


# -- what a run knew


async def test_a_client_that_resumes_on_a_node_started_again_gets_what_was_published_while_it_was_stopped() -> None:
    manager, app = chat("memory://again")
    other, _ = chat("memory://again")
    async with other, serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await hello(client, "t"))["cursor"]
            await other.publish("t", 1)
            cursor = (await client.receive())["pos"]
            await manager.shutdown()
        for n in range(2, 5):
            await other.publish("t", n)
        await manager.startup()
        async with Client.open(f"{server.url}/ws/me") as client:
            answer = await hello(client, "t", cursor=cursor)
            assert (answer["recovered"], answer["cursor"]) == (True, cursor)
            assert await missed(client) == [2, 3, 4]
            await other.publish("t", 5)
            assert (await client.receive())["data"] == 5


async def test_a_read_that_the_stop_interrupted_does_not_hold_up_those_who_resume_after_the_next_start() -> None:
    broker, manager, app = slow("interrupted")
    other, _ = chat("memory://interrupted")
    async with other, serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await hello(client, "t"))["cursor"]
        await manager.shutdown()
        await other.publish("t", 1)
        await manager.startup()
        broker.may_read.clear()
        async with Client.open(f"{server.url}/ws/me") as client:
            await client.send(type="connect", data={"filters": ["t"], "cursor": cursor})
            await asyncio.wait_for(broker.reading.wait(), HANG_S)
            await manager.shutdown()
        broker.may_read.set()
        await manager.startup()
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await hello(client, "t", cursor=cursor))["recovered"] is True
            assert await missed(client) == [1]


async def test_a_node_that_is_started_again_is_not_ready_before_its_broker_is() -> None:
    broker = _Stumbling(fails=0)
    manager = WebSocketManager("chat", broker=broker)
    async with manager:
        assert manager.health().ready
    broker.may_start.clear()
    broker.at_start.clear()
    starting = _spawn(manager.startup())
    await broker.at_start.wait()
    assert (manager.health().started, manager.health().broker) == (False, "connecting")
    broker.may_start.set()
    await starting
    assert manager.health().ready
    await manager.shutdown()


# -- clients that come while the node stops


async def test_a_client_whose_handshake_is_under_way_when_the_node_stops_is_closed_with_1012() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def verify(token: str) -> Principal:
        asked.set()
        await may_answer.wait()
        return Principal(id=token)

    manager, app = chat(verify_token=verify)
    async with serve(app) as server:
        headers = {"Authorization": "Bearer ann"}
        opening = _spawn(_closing_code(f"{server.url}/ws/ann", headers))
        await asked.wait()
        await manager.shutdown()
        may_answer.set()
        assert await opening == 1012
        assert manager.active_connections == []
        assert len(manager._runtime.tasks) == 0
        await manager.startup()


async def _closing_code(url: str, headers: Mapping[str, str]) -> int | None:
    async with Client.open(url, additional_headers=headers) as client:
        closed = await client.closed()
    return closed.rcvd.code if closed.rcvd else None


# -- starts that fail, starts and stops at once


class _Stumbling(MemoryBroker):
    """A memory broker that fails to tail some times, and can be held up."""

    def __init__(self, *, fails: int = 1, stops_badly: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.stops_badly = stops_badly
        self.started = 0
        self.at_start = asyncio.Event()
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def start(self, **arguments: Any) -> None:
        self.at_start.set()
        await self.may_start.wait()
        await super().start(**arguments)
        self.started += 1

    async def stop(self, **arguments: Any) -> None:
        if self._node is not None:
            self.started -= 1
        await super().stop(**arguments)
        if self.stops_badly:
            raise RuntimeError("stopped badly, for the test")

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        if self.fails:
            self.fails -= 1
            raise BrokerUnavailable("cannot tail, for the test")
        return await super().set_interest(partitions)


async def test_a_start_that_fails_stops_the_broker_and_the_next_one_works() -> None:
    broker = _Stumbling()
    manager = WebSocketManager("chat", broker=broker)
    with pytest.raises(BrokerUnavailable, match="cannot tail"):
        await manager.startup()
    assert broker.started == 0
    assert not manager.health().started
    await manager.startup()
    await manager.publish("t", 1)
    await manager.shutdown()
    assert broker.started == 0


async def test_a_start_that_is_cancelled_stops_the_broker() -> None:
    broker = _Stumbling(fails=0)
    at_tail = asyncio.Event()

    async def hang(partitions: frozenset[int]) -> Mapping[int, Head]:
        at_tail.set()
        await asyncio.Event().wait()
        raise AssertionError("never here")

    broker.set_interest = hang  # type: ignore[method-assign]
    starting = _spawn(WebSocketManager("chat", broker=broker).startup())
    await at_tail.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert broker.started == 0


async def test_why_a_start_failed_is_told_also_where_the_broker_cannot_be_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = WebSocketManager("chat", broker=_Stumbling(stops_badly=True))
    with pytest.raises(BrokerUnavailable, match="cannot tail"):
        await manager.startup()
    assert "stopped badly" in caplog.text


async def test_a_broker_that_another_node_has_started_stays_started_when_a_second_node_is_refused() -> None:
    broker = MemoryBroker()
    async with WebSocketManager("chat", broker=broker) as first:
        with pytest.raises(BrokerError, match="started already"):
            await WebSocketManager("chat", broker=broker).startup()
        await first.publish("t", 1)


async def test_a_start_during_a_start_and_a_stop_during_a_start_wait_for_it() -> None:
    broker = _Stumbling(fails=0)
    manager = WebSocketManager("chat", broker=broker)
    broker.may_start.clear()
    starts = [_spawn(manager.startup()) for _ in range(2)]
    await broker.at_start.wait()
    stop = _spawn(manager.shutdown())
    broker.may_start.set()
    await asyncio.gather(*starts, stop)
    assert broker.started == 0
    assert not manager.health().started


async def test_a_stop_that_is_cancelled_while_it_closes_connections_stops_the_broker_all_the_same() -> None:
    broker = _Stumbling(fails=0)
    manager = WebSocketManager("chat", broker=broker)
    app = chat_app(manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        await client.ask(type="ping", id=1)
        (connection,) = manager.active_connections
        closing = asyncio.Event()

        async def hang(code: int, reason: str) -> None:
            closing.set()
            await asyncio.Event().wait()

        connection.websocket.close = hang  # type: ignore[method-assign, assignment]
        stopping = _spawn(manager.shutdown())
        await closing.wait()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert broker.started == 0
        assert len(manager._runtime.tasks) == 0


# -- a broker that is away for a while


async def test_a_start_is_as_patient_as_it_is_told_to_be(caplog: pytest.LogCaptureFixture) -> None:
    broker = _Stumbling(fails=3)
    manager = WebSocketManager("chat", broker=broker, startup_patience_s=HANG_S)
    async with manager:
        assert manager.health().ready
    assert broker.fails == 0
    assert caplog.text.count("the start is retried") == 3


async def test_a_start_ends_when_its_patience_does() -> None:
    broker = _Stumbling(fails=10**9)
    manager = WebSocketManager("chat", broker=broker, startup_patience_s=0.1)
    with pytest.raises(BrokerUnavailable):
        await manager.startup()
    assert 10**9 - broker.fails > 1
    assert broker.started == 0


async def test_no_patience_mends_a_broker_that_is_set_up_wrongly() -> None:
    class Misconfigured(MemoryBroker):
        async def start(self, **arguments: Any) -> None:
            raise BrokerMisconfigured("it is too old.", fix="use a newer one")

    manager = WebSocketManager("chat", broker=Misconfigured(), startup_patience_s=10**9)
    with pytest.raises(BrokerMisconfigured):
        await manager.startup()
