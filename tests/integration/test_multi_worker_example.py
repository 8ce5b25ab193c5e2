"""The multi-worker example, started by its command: uvicorn with four workers, on a private server of each broker."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

import pytest
from services.kafka import PrivateKafka
from services.rabbitmq import PrivateRabbit
from services.redis import PrivateRedis
from support import signals
from support.clients import Gaps, client, receive_data
from support.server_process import ServerProcess
from support.servers import Client
from support.timeouts import HANG_S, progress_timeout

from dws_core.client import Subscription

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")

FOLDER = Path(__file__).parents[2] / "examples/multi_worker"
WORKERS = 4
STARTED = r"Application startup complete"
SERVE = ["--workers", str(WORKERS)]
PUBLISH_S = 10 * HANG_S
"""Timeout of a publish that waits for a server."""

TEST = ["--port", "0", "--no-access-log", "--timeout-worker-healthcheck", "30"]
"""Patient on a busy machine. A worker that is killed during a check is missed for this time, less than the tests wait."""


class Workers(ServerProcess):
    """uvicorn and its workers, with their output and their responses."""

    @classmethod
    @contextmanager
    def serving(cls, broker_url: str) -> Iterator[Self]:
        """Start the workers, and stop them at the end of the block, by force if necessary."""
        command = [sys.executable, "-m", "uvicorn", "app:app", *SERVE, *TEST]
        with cls.open(command, FOLDER, {"BROKER_URL": broker_url}) as server:
            server.printed(STARTED, WORKERS)
            yield server

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of the readiness route, from any worker, over a new connection."""
        connection = http.client.HTTPConnection(self.address, timeout=HANG_S)
        try:
            connection.request("GET", "/ready")
            response = connection.getresponse()
            return response.status, json.load(response)
        finally:
            connection.close()

    async def held(self, count: int) -> dict[int, int]:
        """Wait until all workers have answered and hold `count` connections in total. Return the count per worker."""
        held: dict[int, int] = {}
        async with progress_timeout() as progress:
            while len(held) < WORKERS or sum(held.values()) != count:
                _, answer = await asyncio.to_thread(self.ready)
                if held.get(answer["worker"]) != answer["connections"]:
                    held[answer["worker"]] = answer["connections"]
                    progress()
        return held

    async def answers(self, status: int, workers: int = 1) -> None:
        """Wait until this many workers have answered with this status."""
        answered: set[int] = set()
        async with progress_timeout() as progress:
            while len(answered) < workers:
                found, answer = await asyncio.to_thread(self.ready)
                if found == status and answer["worker"] not in answered:
                    answered.add(answer["worker"])
                    progress()

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"ws://{self.address}/ws"


Broker: TypeAlias = PrivateRedis | PrivateRabbit | PrivateKafka

BROKERS: dict[str, Callable[[], Broker]] = {
    "dws_redis": lambda: PrivateRedis(aof=True, **{"maxmemory-policy": "noeviction"}),  # the settings of the README
    "dws_amqp": PrivateRabbit,
    "dws_kafka": PrivateKafka,
}


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The server that connects the workers."""
    package = request.param
    pytest.importorskip(package, reason=f"needs {package}: pip install ./plugins/{package}")
    server = BROKERS[package]()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def server(broker: Broker) -> Iterator[Workers]:
    """The example, served."""
    with Workers.serving(broker.url) as workers:
        yield workers


class Gate:
    """Holds back reconnecting clients. A client requests its token for each connection, and is stopped there.

    Attributes:
        away: Numbers of the clients that had to wait.
        gaps: Gaps of all clients.
    """

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.gaps = Gaps()
        self._open, self._news = asyncio.Event(), asyncio.Condition()
        self._open.set()

    async def listener(self, stack: AsyncExitStack, server: Workers, number: int) -> Subscription:
        """Connect a client and subscribe it."""

        async def token() -> str:
            if not self._open.is_set():
                async with self._news:
                    self.away.add(number)
                    self._news.notify_all()
                await self._open.wait()
            return "any"

        alice = await stack.enter_async_context(client(server.url, on_gap=self.gaps, token=token))
        return await stack.enter_async_context(alice.subscribe("chat/#"))

    def shut(self) -> None:
        """Hold back clients that reconnect."""
        self._open.clear()

    async def stopped(self, count: int) -> None:
        """Wait until this many clients are held back."""
        async with asyncio.timeout(HANG_S), self._news:
            await self._news.wait_for(lambda: len(self.away) == count)

    def open(self) -> None:
        """Let all clients continue."""
        self._open.set()


async def on_two_workers(
    stack: AsyncExitStack, server: Workers, gate: Gate
) -> tuple[list[Subscription], dict[int, int]]:
    """Connect a dozen listeners or more, until two workers have some. Return them, and their count per worker."""
    await server.held(0)  # all earlier clients have disconnected
    await server.answers(200, WORKERS)  # no worker is behind, because a new client there would receive older messages
    listeners: list[Subscription] = []
    held: dict[int, int] = {}
    while sum(map(bool, held.values())) < 2:
        listeners += [await gate.listener(stack, server, len(listeners) + n) for n in range(12)]
        held = await server.held(len(listeners))
    return listeners, held


async def publish(server: Workers, *data: object) -> None:
    """Publish in order, from a new client."""
    async with client(server.url) as publisher:
        for item in data:
            await publisher.publish("chat/lobby", item)


async def all_take(listeners: list[Subscription], *data: object) -> None:
    """Check that each listener receives exactly these messages, in this order."""
    taken = await asyncio.gather(*(receive_data(listener, len(data)) for listener in listeners))
    assert taken == [list(data)] * len(listeners)


async def test_message_reaches_clients_of_all_workers_once(server: Workers) -> None:
    gate = Gate()
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        assert len(held) == WORKERS
        await publish(server, "hello", "again")  # a second "hello" would come before "again"
        await all_take(listeners, "hello", "again")
    assert gate.gaps == []


async def test_killed_worker_is_replaced_without_message_loss(server: Workers) -> None:
    gate = Gate()
    started = len(server.printed(STARTED))
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        victim = max(held, key=held.__getitem__)
        await publish(server, "before")
        await all_take(listeners, "before")
        gate.shut()
        await asyncio.to_thread(signals.kill, victim)
        await gate.stopped(held[victim])
        missed = [f"meanwhile {n}" for n in range(20)]
        await publish(server, *missed)
        gate.open()
        await all_take(listeners, *missed)
        await asyncio.to_thread(server.printed, rf"Child process \[{victim}\] died")
        await asyncio.to_thread(server.printed, STARTED, started + 1)
        assert victim not in await server.held(len(listeners))
        await publish(server, "after")
        await all_take(listeners, "after")
    assert gate.gaps == []


async def test_shutdown_closes_every_client_with_1012(broker: Broker) -> None:
    with Workers.serving(broker.url) as server:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client.open(server.url)) for _ in range(12)]
            for alice in clients:
                await alice.subscribe("chat/#")
            server.process.send_signal(signal.SIGTERM)
            closed = await asyncio.gather(*(alice.wait_closed() for alice in clients))
        assert [end.rcvd and end.rcvd.code for end in closed] == [1012] * len(clients)
        assert await asyncio.to_thread(server.process.wait, HANG_S) == 0
        assert len(server.printed("Finished server process", WORKERS)) == WORKERS


async def test_broker_outage_makes_workers_unready_without_loss(server: Workers, broker: Broker) -> None:
    gate = Gate()
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        publisher = await stack.enter_async_context(client(server.url))
        gate.shut()
        await asyncio.to_thread(broker.kill)
        async with asyncio.TaskGroup() as group:
            await server.answers(503)
            waiting = group.create_task(publisher.publish("chat/lobby", "meanwhile", timeout_s=PUBLISH_S))
            assert set(await server.held(len(listeners) + 1)) == set(held), "the same workers, with all their clients"
            assert not waiting.done()
            await asyncio.to_thread(broker.start)
        await all_take(listeners, "meanwhile")
        await server.answers(200)
    assert gate.away == set(), "nobody lost the connection"
    assert gate.gaps == []


async def test_worker_killed_during_broker_outage_is_replaced(server: Workers, broker: Broker) -> None:
    """The server is frozen, because the start of some servers takes longer than the worker waits."""
    gate = Gate()
    started = len(server.printed(STARTED))
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        publisher = await stack.enter_async_context(client(server.url))
        gate.shut()
        await asyncio.to_thread(broker.freeze)
        victim = max(held, key=held.__getitem__)
        await asyncio.to_thread(signals.kill, victim)
        await asyncio.to_thread(server.printed, "the start is retried")
        assert len(server.printed(STARTED)) == started
        await asyncio.to_thread(broker.thaw)
        await asyncio.to_thread(server.printed, STARTED, started + 1)
        gate.open()
        await publisher.publish("chat/lobby", "after", timeout_s=PUBLISH_S)
        await all_take(listeners, "after")
    assert gate.gaps == []
