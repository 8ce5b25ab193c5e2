"""Restarts of a node, which must start with a clean state, and starts that fail, which must leave nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import pytest
from dws_memory import MemoryBroker
from support.apps import chat, chat_app
from support.resume import connect, receive_replay, slow_node
from support.servers import HANG_S, Client, serve

from dws_core import BrokerError, BrokerUnavailable, Principal, WebSocketManager
from dws_core.plugin import BrokerMisconfigured, Head

_T = TypeVar("_T")


def _spawn(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    return asyncio.get_running_loop().create_task(coroutine)


# -- state of the previous run


async def test_client_resumes_after_node_restart() -> None:
    """It receives the messages published while the node was stopped."""
    manager, app = chat("memory://again")
    other, _ = chat("memory://again")
    async with other, serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
            await other.publish("t", 1)
            cursor = (await client.receive())["pos"]
            await manager.shutdown()
        for n in range(2, 5):
            await other.publish("t", n)
        await manager.startup()
        async with Client.open(f"{server.url}/ws/me") as client:
            answer = await connect(client, "t", cursor=cursor)
            assert (answer["recovered"], answer["cursor"]) == (True, cursor)
            assert await receive_replay(client) == [2, 3, 4]
            await other.publish("t", 5)
            assert (await client.receive())["data"] == 5


async def test_interrupted_read_does_not_block_later_resumes() -> None:
    broker, manager, app = slow_node("interrupted")
    other, _ = chat("memory://interrupted")
    async with other, serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
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
            assert (await connect(client, "t", cursor=cursor))["recovered"] is True
            assert await receive_replay(client) == [1]


async def test_restarted_node_is_not_ready_before_its_broker() -> None:
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


# -- clients that connect while the node stops


async def test_handshake_during_stop_closes_with_1012() -> None:
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
        closed = await client.wait_closed()
    return closed.rcvd.code if closed.rcvd else None


# -- failing starts, concurrent starts and stops


class _Stumbling(MemoryBroker):
    """A memory broker whose first calls of `set_interest` fail, and whose start can be blocked."""

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


async def test_failed_start_stops_broker_and_next_works() -> None:
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


async def test_cancelled_start_stops_broker() -> None:
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


async def test_start_error_is_raised_even_if_broker_stop_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = WebSocketManager("chat", broker=_Stumbling(stops_badly=True))
    with pytest.raises(BrokerUnavailable, match="cannot tail"):
        await manager.startup()
    assert "stopped badly" in caplog.text


async def test_broker_of_first_node_survives_second_node_start() -> None:
    """The start of the second node is rejected."""
    broker = MemoryBroker()
    async with WebSocketManager("chat", broker=broker) as first:
        with pytest.raises(BrokerError, match="already started"):
            await WebSocketManager("chat", broker=broker).startup()
        await first.publish("t", 1)


async def test_concurrent_start_and_stop_wait_for_start() -> None:
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


async def test_cancelled_stop_still_stops_broker() -> None:
    broker = _Stumbling(fails=0)
    manager = WebSocketManager("chat", broker=broker)
    app = chat_app(manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        await client.exchange(type="ping", id=1)
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


# -- a broker that is temporarily unavailable


async def test_start_is_retried_within_patience(caplog: pytest.LogCaptureFixture) -> None:
    broker = _Stumbling(fails=3)
    manager = WebSocketManager("chat", broker=broker, startup_patience_s=HANG_S)
    async with manager:
        assert manager.health().ready
    assert broker.fails == 0
    assert caplog.text.count("the start is retried") == 3


async def test_start_fails_after_patience() -> None:
    broker = _Stumbling(fails=10**9)
    manager = WebSocketManager("chat", broker=broker, startup_patience_s=1.0)
    with pytest.raises(BrokerUnavailable):
        await manager.startup()
    assert 10**9 - broker.fails > 1
    assert broker.started == 0


async def test_misconfigured_broker_is_not_retried() -> None:
    class Misconfigured(MemoryBroker):
        async def start(self, **arguments: Any) -> None:
            raise BrokerMisconfigured("it is too old.", fix="use a newer one")

    manager = WebSocketManager("chat", broker=Misconfigured(), startup_patience_s=10**9)
    with pytest.raises(BrokerMisconfigured):
        await manager.startup()
