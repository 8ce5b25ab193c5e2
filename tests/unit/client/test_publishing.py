"""The Python client repeats publishes in their order, whatever the node refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from support.cost import cpu_time
from support.virtual_time import virtual

from dws_core._errors import PublishOutcomeUnknown
from dws_core._wire.client_errors import Refused
from dws_core.client import _publishing
from dws_core.client._publishing import Entry, Line, Publishing, Recalled

UNAVAILABLE = Refused("unavailable", "away", temporary=True)


class Node:
    """A node that stores the publishes of one connection in order, and fails the later ones if one fails.

    It receives a message some time after it was sent, and the client its reply some time later. Like the core, it refuses
    messages that arrive after a failure until the first one that failed is repeated.

    Attributes:
        log: The stored data, each key once.
        repeats: Number of messages that arrived again.
    """

    def __init__(self, seed: int) -> None:
        self.log: list[Any] = []
        self.repeats = 0
        self._keys: set[str] = set()
        self._seen: set[str] = set()
        self._rng = random.Random(seed)
        self._arriving: list[tuple[Mapping[str, Any], asyncio.Future[Mapping[str, Any]]]] = []
        self._failed: str | None = None
        self._replies: list[tuple[asyncio.Future[Mapping[str, Any]], Refused | None]] = []

    async def ask(self, members: Mapping[str, Any], recall: asyncio.Future[None]) -> Mapping[str, Any]:
        reply: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        recall.add_done_callback(lambda _: None if reply.done() else reply.set_exception(Recalled()))
        self._arriving.append((members, reply))
        return await reply

    async def run(self) -> None:
        """Receive and reply at random times."""
        while True:
            await asyncio.sleep(self._rng.random() / 10)
            if self._rng.random() < 0.5:
                self._receive(self._rng.randint(1, 5), away=self._rng.random() < 0.4)
            else:
                self._reply(self._rng.randint(1, 5))

    def _receive(self, count: int, *, away: bool) -> None:
        arrived, self._arriving = self._arriving[:count], self._arriving[count:]
        for members, reply in arrived:
            key = members["key"]
            self.repeats += key in self._seen
            self._seen.add(key)
            if key == self._failed:
                self._failed = None
            if self._failed is None and away:
                self._failed = key
            if self._failed is None and key not in self._keys:
                self._keys.add(key)
                self.log.append(members["data"])
            self._replies.append((reply, None if self._failed is None else UNAVAILABLE))

    def _reply(self, count: int) -> None:
        ready, self._replies = self._replies[:count], self._replies[count:]
        for reply, error in ready:
            if reply.done():
                continue
            if error is None:
                reply.set_result({"pos": "0:e:1"})
            else:
                reply.set_exception(error)


async def play(seed: int) -> Node:
    """Publish 60 messages at random times, and return the node."""
    node, rng = Node(seed), random.Random(seed)
    publishing = Publishing(node.ask, window=8)
    running = asyncio.get_running_loop().create_task(node.run())
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            members = {"type": "send", "topic": "t", "data": number, "key": f"k{number}"}
            group.create_task(publishing.publish(members, 3000.0))
            if rng.random() < 0.7:
                await asyncio.sleep(rng.random() / 5)
    running.cancel()
    return node


@virtual
async def test_refused_publishes_are_repeated_in_order() -> None:
    repeats = 0
    for seed in range(60):
        node = await play(seed)
        assert node.log == list(range(60)), f"seed {seed}"
        repeats += node.repeats
    assert repeats > 1_000


class NoRecall(Line):
    def refused(self, entry: Entry, retry_in_s: float) -> None:
        later = [other for other in self._entries if other is not entry]
        kept = {other: other.recall for other in later}
        for other in later:
            other.recall = None
        super().refused(entry, retry_in_s)
        for other, recall in kept.items():
            other.recall = recall


class NewOnesDoNotWait(Line):
    async def turn(self, entry: Entry) -> asyncio.Future[None]:
        if entry.turn is None:
            entry.recall = asyncio.get_running_loop().create_future()
            return entry.recall
        return await super().turn(entry)


class AllGoAtOnce(Line):
    def _release(self) -> None:
        for entry in reversed(self._entries):
            if entry.turn is not None and not entry.turn.done():
                entry.turn.set_result(None)


@pytest.mark.parametrize("mutant", [NoRecall, NewOnesDoNotWait, AllGoAtOnce])
def test_model_detects_broken_rule(mutant: type[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_publishing, "Line", mutant)

    @virtual
    async def search() -> None:
        for seed in range(60):
            assert (await play(seed)).log == list(range(60))

    with pytest.raises(AssertionError):
        search()


@virtual
async def test_publish_that_gives_up_lets_others_go() -> None:
    calls: list[str] = []

    async def ask(members: Mapping[str, Any], recall: asyncio.Future[None]) -> Mapping[str, Any]:
        calls.append(members["key"])
        if members["key"] == "a":
            raise UNAVAILABLE
        return {"pos": members["key"]}

    publishing = Publishing(ask, window=4)
    async with asyncio.TaskGroup() as group:
        given_up = group.create_task(fails(publishing, {"type": "send", "topic": "t", "key": "a"}))
        await asyncio.sleep(0.01)
        other = group.create_task(publishing.publish({"type": "send", "topic": "t", "key": "b"}, 60.0))
    assert given_up.result()
    assert other.result() == "b"
    assert "b" in calls
    assert publishing._lines == {}


async def fails(publishing: Publishing, members: Mapping[str, Any]) -> bool:
    with pytest.raises(PublishOutcomeUnknown):
        await publishing.publish(members, 5.0)
    return True


@virtual
async def test_other_topics_do_not_wait() -> None:
    async def ask(members: Mapping[str, Any], recall: asyncio.Future[None]) -> Mapping[str, Any]:
        if members["topic"] == "away":
            raise UNAVAILABLE
        return {"pos": "1"}

    publishing = Publishing(ask, window=4)
    async with asyncio.TaskGroup() as group:
        group.create_task(fails(publishing, {"type": "send", "topic": "away", "key": "a"}))
        await asyncio.sleep(0.01)
        started = asyncio.get_running_loop().time()
        await publishing.publish({"type": "send", "topic": "t", "key": "b"}, 60.0)
        assert asyncio.get_running_loop().time() == started


async def test_cost_of_publish_does_not_grow_with_those_that_wait() -> None:
    async def ask(members: Mapping[str, Any], recall: asyncio.Future[None]) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {"pos": "1"}

    async def publish(count: int) -> float:
        publishing = Publishing(ask, window=10)
        with cpu_time() as cost:
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(publishing.publish({"type": "send", "topic": "t", "key": f"{number}"}, 600.0))
        return cost.cpu_s / count

    few, many = await publish(500), await publish(10_000)
    assert many < 5 * few
