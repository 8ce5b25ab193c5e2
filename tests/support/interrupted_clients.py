"""Clients whose connections are cut at any byte while nodes are killed, and the oracle that checks them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any, NamedTuple

from support.apps import HISTORY
from support.clients import client
from support.cutting_proxy import CuttingProxy
from support.processes import NodeProcess
from support.timeouts import HANG_S, progress_timeout

from dws_core._topics.filters import matches_filter
from dws_core.client import Client, Gap, Message, Subscription

TOPICS = ("t/0", "t/1", "t/2", "short")
"""The history of the topic `short` is small. The other topics keep all messages."""
FILTERS = (("t/#",), ("t/+",), ("t/#", "t/0"), ("+/0",), ("t/1", "t/2"), ("#",))
"""The filters of the roamers. The last roamer is the sleeper."""


class Entry(NamedTuple):
    """A message as its publisher and its receivers see it, which sorts in the order of the log."""

    offset: int
    topic: str
    n: int


class PlayState:
    """The published messages, the problems found, and whether the test has ended.

    Attributes:
        on_progress: Function that is called after each progress.
    """

    def __init__(self) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self.stored: list[Entry] = []
        self.problems: list[str] = []
        self.over = asyncio.Event()
        self.enough = asyncio.Event()
        self._more = asyncio.Event()

    def publish(self, entry: Entry) -> None:
        self.on_progress()
        self.stored.append(entry)
        self._more.set()

    async def wait_for_more(self, count: int) -> None:
        """Wait until this many more messages are stored."""
        wanted = len(self.stored) + count
        while len(self.stored) < wanted:
            self._more.clear()
            await self._more.wait()

    def problem(self, text: str) -> None:
        self.problems.append(text)
        self.over.set()

    async def publisher(self, url: str, topics: Sequence[str]) -> None:
        async with client(f"{url}/ws/publisher") as publisher, asyncio.TaskGroup() as chains:
            for topic in topics:
                chains.create_task(self._publish_until_enough(publisher, topic))

    async def _publish_until_enough(self, publisher: Client, topic: str) -> None:
        n = -1
        while not self.enough.is_set():
            n += 1
            await self._publish(publisher, topic, n, last=False)
        await self._publish(publisher, topic, n + 1, last=True)

    async def _publish(self, publisher: Client, topic: str, n: int, *, last: bool) -> None:
        position = await publisher.publish(topic, {"n": n, "last": last}, timeout_s=10 * HANG_S)
        assert position is not None
        self.publish(Entry(_offset(position), topic, n))


class SubscriptionTrack:
    """The messages that one subscription received."""

    def __init__(self, roamer: Roamer, subscription: Subscription) -> None:
        self.got: list[Entry] = []
        self.filter = subscription.filter or ""
        self._roamer = roamer
        self._subscription = subscription
        self._last: dict[str, int] = defaultdict(lambda: -1)
        self._open = {topic for topic in TOPICS if matches_filter(topic, self.filter)}

    async def receive_all(self) -> None:
        """Receive messages up to the last one of each topic."""
        while self._open:
            self._take(await anext(self._subscription))

    def _take(self, message: Message) -> None:
        assert message.topic is not None
        assert message.position is not None
        data: Any = message.data
        entry = Entry(_offset(message.position), message.topic, data["n"])
        last = self._last[entry.topic]
        if entry.n <= last:
            self._roamer.problem(f"{self.filter}: {entry} is repeated or out of order, after {last}")
        elif entry.n > last + 1 and not self._roamer.gaps:
            self._roamer.problem(f"{self.filter}: lost messages between {last} and {entry}, and received no gap")
        self._last[entry.topic] = entry.n
        self.got.append(entry)
        self._roamer.report_progress()
        if data["last"]:
            self._open.discard(entry.topic)

    def check(self, stored: Sequence[Entry]) -> None:
        """Compare with the stored messages: same order, complete except for one block before the end of each gap."""
        ends = [gap.until for gap in self._roamer.gaps]
        wanted = iter(sorted(entry for entry in stored if matches_filter(entry.topic, self.filter)))
        for entry in self.got:
            missing = []
            while (next_ := next(wanted, None)) != entry:
                if next_ is None:
                    self._roamer.problem(f"{self.filter}: {entry} is out of order or was never stored")
                    return
                missing.append(next_.offset)
            if missing and (not ends or not missing[-1] <= ends.pop(0) < entry.offset):
                self._roamer.problem(f"{self.filter}: lost {len(missing)} messages before {entry}, and received no gap")


class ReceivedGap(NamedTuple):
    """A gap and its end."""

    reason: str
    until: int


class Roamer:
    """A client of the library that connects through a cutting proxy."""

    def __init__(self, number: int, filters: tuple[str, ...], proxy: CuttingProxy, state: PlayState) -> None:
        self.gaps: list[ReceivedGap] = []
        self.ready = asyncio.Event()
        self.progress = asyncio.Event()
        self.proxy = proxy
        self._name = f"roamer {number}"
        self._state = state
        self._client = client(f"{proxy.url}/ws/r{number}", on_gap=self._on_gap)
        self._tracks = [SubscriptionTrack(self, self._client.subscribe(filter_)) for filter_ in filters]

    async def roam(self) -> None:
        async with self._client, asyncio.TaskGroup() as readers:
            self.ready.set()
            for track in self._tracks:
                readers.create_task(track.receive_all())

    def check(self) -> None:
        """Compare the received messages with the stored ones, of which the publishers must know all positions."""
        for track in self._tracks:
            track.check(self._state.stored)

    def problem(self, text: str) -> None:
        self._state.problem(f"{self._name}, {text}")

    def report_progress(self) -> None:
        self._state.on_progress()
        self.progress.set()

    def _on_gap(self, gap: Gap) -> None:
        assert self._client.cursor is not None
        self.gaps.append(ReceivedGap(gap.reason, _offset(self._client.cursor)))
        self.report_progress()


class Outcome(NamedTuple):
    """The result of a test."""

    seed: int
    problems: list[str]
    gaps: list[list[ReceivedGap]]
    hops: list[int]
    messages: int


async def play(broker_url: str, seed: int, *patches: str) -> Outcome:
    """Run six roaming clients, two publishers and two nodes that are killed. The seed determines the cuts."""
    state = PlayState()
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(NodeProcess.open(broker_url, *patches)) for _ in range(2)]
        async with asyncio.TaskGroup() as starting:
            for node in nodes:
                starting.create_task(node.start())
        cuts = [_random_cuts(random.Random(seed + number)) for number in range(len(FILTERS) + 2)]
        asleep = len(FILTERS) - 1
        cuts[asleep] = chain(_sleeper_cuts(), cuts[asleep])
        proxies = [await stack.enter_async_context(CuttingProxy(nodes, some)) for some in cuts]
        roamers = [Roamer(*one, state) for one in zip(range(len(FILTERS)), FILTERS, proxies, strict=False)]
        try:
            await _until_over(state, _run_all(state, nodes, roamers, proxies[len(FILTERS) :]))
        except TimeoutError:
            state.problem(f"no progress for {HANG_S:.0f} s")
    gaps, hops = [roamer.gaps for roamer in roamers], [proxy.hops for proxy in proxies]
    return Outcome(seed, state.problems, gaps, hops, len(state.stored))


async def _until_over(state: PlayState, playing: Any) -> None:
    """Run to the end, or to the first problem."""
    async with progress_timeout() as state.on_progress, asyncio.TaskGroup() as group:
        game = group.create_task(playing)
        game.add_done_callback(lambda _: state.over.set())
        await state.over.wait()
        game.cancel()


async def _run_all(
    state: PlayState, nodes: Sequence[NodeProcess], roamers: Sequence[Roamer], proxies: Sequence[CuttingProxy]
) -> None:
    async with asyncio.TaskGroup() as group:
        for roamer in roamers:
            group.create_task(roamer.roam())
        for roamer in roamers:
            await roamer.ready.wait()
        for proxy, topics in zip(proxies, (TOPICS[:2], TOPICS[2:]), strict=True):
            group.create_task(state.publisher(proxy.url, topics))
        await _cause_faults(state, nodes, roamers[-1])
    for roamer in roamers:
        roamer.check()


async def _cause_faults(state: PlayState, nodes: Sequence[NodeProcess], sleeper: Roamer) -> None:
    await state.wait_for_more(100)
    sleeper.proxy.block()
    for node in nodes:
        await state.wait_for_more(100)
        await node.kill()
        await node.start()
    await state.wait_for_more(2 * HISTORY["short"].size * len(TOPICS))
    sleeper.progress.clear()
    sleeper.proxy.unblock()
    await sleeper.progress.wait()
    await state.wait_for_more(100)
    state.enough.set()


def _sleeper_cuts() -> Iterator[int]:
    """Keep the first connection. Cut each one after the sleep a little later in its reply and its gap."""
    return chain([2**40], range(100, 800, 20))


def _random_cuts(chance: random.Random) -> Iterator[int]:
    """Return the numbers of bytes after which connections break: in the handshake, in a replay, or in live traffic."""
    while True:
        yield chance.randrange(150, 1_500) if chance.random() < 0.3 else chance.randrange(2_000, 20_000)


def _offset(position: str) -> int:
    """Return the offset of a position, or of a cursor of one partition."""
    partition, _, offset = position.split(":")
    assert partition == "0"
    return int(offset)
