"""The multi-worker example, as a user starts it: uvicorn with four workers, on a private Redis."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from services.redis import PrivateRedis, find_redis
from support.clients import Gaps, client, take
from support.servers import Client

from dws_core.client import Subscription

pytest.importorskip("dws_redis")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")

FOLDER = Path(__file__).parents[2] / "examples/multi_worker"
WORKERS = 4
STARTED = r"Application startup complete"
SERVE = ["--workers", str(WORKERS), "--ws", "dws_core.server:WebSocketProtocol"]
TEST = ["--port", "0", "--no-access-log", "--timeout-worker-healthcheck", "30"]  # patient on a busy machine
HANG_S = 40.0


class Workers:
    """uvicorn and its workers: what they print, and what they answer."""

    def __init__(self, broker_url: str) -> None:
        self._text, self._ended, self._news = "", False, threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", *SERVE, *TEST],
            cwd=FOLDER,
            env={**os.environ, "BROKER_URL": broker_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @classmethod
    @contextmanager
    def serving(cls, broker_url: str) -> Iterator[Self]:
        """Start them; end them at the end of the block, by force if need be."""
        server = cls(broker_url)
        try:
            server.said(STARTED, WORKERS)
            yield server
        finally:
            server.end()

    def end(self) -> None:
        """End them as a supervisor does."""
        self.process.terminate()
        try:
            self.process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        finally:
            self._reader.join(HANG_S)

    def said(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until a pattern has been printed so often; return what it found."""

        def enough() -> bool:
            return self._ended or len(re.findall(pattern, self._text)) >= times

        with self._news:
            self._news.wait_for(enough, HANG_S)
            found = re.findall(pattern, self._text)
            assert len(found) >= times, f"no {pattern!r}, {times} times, in:\n{self._text}"
            return found

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Ask for readiness over a new connection, which any of the workers takes; return status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_S)
        try:
            connection.request("GET", "/ready")
            response = connection.getresponse()
            return response.status, json.load(response)
        finally:
            connection.close()

    async def held(self, count: int) -> dict[int, int]:
        """Ask until each worker has answered and they hold so many connections; return how many each holds."""
        held: dict[int, int] = {}
        async with asyncio.timeout(HANG_S):
            while len(held) < WORKERS or sum(held.values()) != count:
                _, answer = await asyncio.to_thread(self.ready)
                held[answer["worker"]] = answer["connections"]
        return held

    async def answers(self, status: int, workers: int = 1) -> None:
        """Ask until so many workers have answered so."""
        answered: set[int] = set()
        async with asyncio.timeout(HANG_S):
            while len(answered) < workers:
                found, answer = await asyncio.to_thread(self.ready)
                if found == status:
                    answered.add(answer["worker"])

    @property
    def port(self) -> int:
        """Where they listen."""
        return int(self.said(r"running on http://127\.0\.0\.1:(\d+)")[0])

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self._text += line
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@pytest.fixture(scope="module")
def redis() -> Iterator[PrivateRedis]:
    """A Redis with the settings of the README."""
    find_redis()
    server = PrivateRedis(aof=True, **{"maxmemory-policy": "noeviction"})
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def server(redis: PrivateRedis) -> Iterator[Workers]:
    """The example, served."""
    with Workers.serving(redis.url) as workers:
        yield workers


class Gate:
    """Where clients wait that come back. A client asks for its token whenever it connects: it is stopped there.

    Attributes:
        away: The numbers of those who had to wait.
        gaps: What any of them was told.
    """

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.gaps = Gaps()
        self._open, self._news = asyncio.Event(), asyncio.Condition()
        self._open.set()

    async def listener(self, stack: AsyncExitStack, server: Workers, number: int) -> Subscription:
        """Let a client in and have it listen."""

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
        """Stop those who come back."""
        self._open.clear()

    async def stopped(self, count: int) -> None:
        """Wait until so many stand here."""
        async with asyncio.timeout(HANG_S), self._news:
            await self._news.wait_for(lambda: len(self.away) == count)

    def open(self) -> None:
        """Let them go on."""
        self._open.set()


async def on_two_workers(
    stack: AsyncExitStack, server: Workers, gate: Gate
) -> tuple[list[Subscription], dict[int, int]]:
    """Let listeners come, a dozen or more, until two workers have some; return them, and how many each worker has."""
    await server.held(0)  # whoever was here before has left
    await server.answers(200, WORKERS)  # no worker is still behind: a newcomer there would hear what came before it
    listeners: list[Subscription] = []
    held: dict[int, int] = {}
    while sum(map(bool, held.values())) < 2:
        listeners += [await gate.listener(stack, server, len(listeners) + n) for n in range(12)]
        held = await server.held(len(listeners))
    return listeners, held


async def publish(server: Workers, *data: object) -> None:
    """Publish in order, from a client that comes for it."""
    async with client(server.url) as publisher:
        for item in data:
            await publisher.publish("chat/lobby", item)


async def all_take(listeners: list[Subscription], *data: object) -> None:
    """Let each listener take as many messages: they are these, in this order."""
    taken = await asyncio.gather(*(take(listener, len(data)) for listener in listeners))
    assert taken == [list(data)] * len(listeners)


async def test_what_one_worker_is_told_the_clients_of_all_hear_once(server: Workers) -> None:
    gate = Gate()
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        assert len(held) == WORKERS
        await publish(server, "hello", "again")  # a second "hello" would come before "again"
        await all_take(listeners, "hello", "again")
    assert gate.gaps == []


async def test_the_clients_of_a_killed_worker_miss_nothing_and_another_takes_its_place(server: Workers) -> None:
    gate = Gate()
    started = len(server.said(STARTED))
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        victim = max(held, key=held.__getitem__)
        await publish(server, "before")
        await all_take(listeners, "before")
        gate.shut()
        os.kill(victim, signal.SIGKILL)
        await gate.stopped(held[victim])
        missed = [f"meanwhile {n}" for n in range(20)]
        await publish(server, *missed)
        gate.open()
        await all_take(listeners, *missed)
        await asyncio.to_thread(server.said, rf"Child process \[{victim}\] died")
        await asyncio.to_thread(server.said, STARTED, started + 1)
        assert victim not in await server.held(len(listeners))
        await publish(server, "after")
        await all_take(listeners, "after")
    assert gate.gaps == []


async def test_at_its_end_every_client_is_told_that_the_server_restarts(redis: PrivateRedis) -> None:
    with Workers.serving(redis.url) as server:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client.open(server.url)) for _ in range(12)]
            for alice in clients:
                await alice.subscribe("chat/#")
            server.process.send_signal(signal.SIGTERM)
            closed = await asyncio.gather(*(alice.closed() for alice in clients))
        assert [end.rcvd and end.rcvd.code for end in closed] == [1012] * len(clients)
        assert await asyncio.to_thread(server.process.wait, HANG_S) == 0
        assert len(server.said("Finished server process", WORKERS)) == WORKERS


async def test_while_redis_is_away_workers_are_not_ready_and_nothing_is_lost(
    server: Workers, redis: PrivateRedis
) -> None:
    gate = Gate()
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        publisher = await stack.enter_async_context(client(server.url))
        gate.shut()
        await asyncio.to_thread(redis.kill)
        async with asyncio.TaskGroup() as group:
            await server.answers(503)
            waiting = group.create_task(publisher.publish("chat/lobby", "meanwhile"))
            assert set(await server.held(len(listeners) + 1)) == set(held), "the same workers, with all their clients"
            assert not waiting.done()
            await asyncio.to_thread(redis.start)
        await all_take(listeners, "meanwhile")
        await server.answers(200)
    assert gate.away == set(), "nobody lost the connection"
    assert gate.gaps == []


async def test_a_worker_that_is_killed_while_redis_is_away_is_replaced_when_it_is_back(
    server: Workers, redis: PrivateRedis
) -> None:
    gate = Gate()
    started = len(server.said(STARTED))
    async with AsyncExitStack() as stack:
        listeners, held = await on_two_workers(stack, server, gate)
        publisher = await stack.enter_async_context(client(server.url))
        gate.shut()
        await asyncio.to_thread(redis.kill)
        victim = max(held, key=held.__getitem__)
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(server.said, "the start is retried")
        assert len(server.said(STARTED)) == started
        await asyncio.to_thread(redis.start)
        await asyncio.to_thread(server.said, STARTED, started + 1)
        gate.open()
        await publisher.publish("chat/lobby", "after")
        await all_take(listeners, "after")
    assert gate.gaps == []
