"""Clients that move from node to node, publishers that continue during faults, and the checks at the end."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence

from support.clients import client
from support.timeouts import HANG_S

from dws_core import PublishOutcomeUnknown
from dws_core.client import Gap, Message

TOPICS = [f"t/{n}" for n in range(4)]
FILTERS = {"#": TOPICS, "t/#": TOPICS, "t/+": TOPICS, "+/0": TOPICS[:1], "t/1": TOPICS[1:2], "t/2": TOPICS[2:3]}
"""The filter of each roamer, and the topics that it receives."""

END = "end"
"""Payload that ends every topic. It is published repeatedly until every roamer has received it."""

_PATIENCE_S = 10 * HANG_S
"""Timeout of the clients, longer than the test waits for progress."""


class Progress:
    """Counts acknowledged messages, and lets tasks wait for a number.

    Args:
        on_progress: Function that is called after each progress.

    Attributes:
        unknown: Topics and data of the publishes whose outcome is unknown, because the broker was away for longer than
            it remembers keys. They may be stored.
    """

    def __init__(self, on_progress: Callable[[], None]) -> None:
        self.on_progress = on_progress
        self.count = 0
        self.unknown: set[tuple[str, object]] = set()
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def step(self) -> None:
        """Count one message."""
        self.on_progress()
        self.count += 1
        for number, event in self._waiting:
            if self.count >= number:
                event.set()

    async def reach(self, number: int) -> None:
        """Wait until the count reaches a number."""
        event = asyncio.Event()
        self._waiting.append((number, event))
        if self.count < number:
            await event.wait()


class Roamer:
    """A client that changes its node after a few messages, and resumes from the last message that it handled.

    Args:
        on_progress: Function that is called for each new message.

    Attributes:
        got: Received data by topic.
        gaps: Received gaps.
        hops: Number of changes of the node.
        started: Set when it has its first position. Later messages must arrive.
        settled: Whether to stay on the current node.
        unknown: Topics and data that may be missing.
    """

    def __init__(
        self,
        number: int,
        filter_: str,
        topics: Collection[str],
        *,
        urls: list[str],
        seed: int,
        on_progress: Callable[[], None],
    ) -> None:
        self.number = number
        self.topics = topics
        self.got: defaultdict[str, list[object]] = defaultdict(list)
        self.gaps: list[Gap] = []
        self.hops = 0
        self.started = asyncio.Event()
        self.settled = False
        self._filter = filter_
        self._on_progress = on_progress
        self._urls = urls
        self._rng = random.Random(f"{seed} {number}")
        self._cursor: str | None = None
        self._ended: set[str] = set()
        self.unknown: set[tuple[str, object]] = set()

    @property
    def done(self) -> bool:
        """Whether every topic has ended."""
        return self._ended.issuperset(self.topics)

    async def roam(self) -> None:
        """Move from node to node until every topic has ended."""
        while not self.done:
            url = f"{self._urls[(self.hops + self.number) % len(self._urls)]}/ws/roamer-{self.number}"
            alice = client(url, cursor=self._cursor, on_gap=self.gaps.append, connect_timeout_s=_PATIENCE_S)
            messages = alice.subscribe(self._filter)
            async with alice:
                self._cursor = self._cursor or alice.cursor
                self.started.set()
                room = self._rng.randint(3, 30)
                while not self.done and (room > 0 or self.settled):
                    self._take(await anext(messages))
                    room -= 1
            self.hops += 1

    def _take(self, message: Message) -> None:
        assert message.topic is not None
        self._cursor = message.position  # of the only partition
        if message.data == END and message.topic in self._ended:
            return
        self._on_progress()
        if message.data == END:
            self._ended.add(message.topic)
        else:
            self.got[message.topic].append(message.data)

    def violations(self, count: int) -> list[str]:
        """Return the faults, given that each topic should be `0 … count - 1`, once and in order."""
        found = [f"roamer {self.number}: gap {gap}" for gap in self.gaps]
        for topic in self.topics:
            got = self.got[topic]
            known = [data for data in got if (topic, data) not in self.unknown]
            wanted = [n for n in range(count) if (topic, n) not in self.unknown]
            if known == wanted and len(got) == len(set(got)):
                continue
            kinds = {
                "hole": set(wanted) - set(known),
                "repeat": len(got) != len(set(got)),
                "order": known != sorted(known, key=int),
            }  # type: ignore[call-overload]
            found += [f"roamer {self.number}: {kind} in {topic} {got}" for kind, is_so in kinds.items() if is_so]
        return found


async def publish_all(number: int, topic: str, count: int, url: str, progress: Progress) -> None:
    """Publish `0 … count - 1`, a few at a time, also while the node is down."""
    publisher = client(f"{url}/ws/publisher-{number}", window=4, connect_timeout_s=_PATIENCE_S)

    async def publish(n: int) -> None:
        try:
            await publisher.publish(topic, n, timeout_s=_PATIENCE_S)
        except PublishOutcomeUnknown:
            progress.unknown.add((topic, n))
        progress.step()

    async with publisher, asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(publish(n))


async def publish_ends(url: str, topics: Collection[str], roamers: Collection[Roamer]) -> None:
    """Let the roamers settle, and publish the end of every topic until all have received it."""
    for roamer in roamers:
        roamer.settled = True
    async with client(f"{url}/ws/last", connect_timeout_s=_PATIENCE_S) as publisher:
        while not all(roamer.done for roamer in roamers):
            for topic in topics:
                await publisher.publish(topic, END, timeout_s=_PATIENCE_S)


async def roam(
    urls: list[str],
    *,
    seed: int,
    count: int,
    trouble: Callable[[Progress], Awaitable[None]],
    on_progress: Callable[[], None],
    publisher_urls: Sequence[str] = (),
) -> list[Roamer]:
    """Let six clients move between nodes while publishers publish to every topic. Return the clients.

    Args:
        urls: URLs of the nodes.
        seed: Seed of all random choices.
        count: Number of messages of each topic.
        trouble: Causes faults while clients publish.
        on_progress: Function that is called after each progress.
        publisher_urls: URLs of the nodes of the publishers. If empty, all nodes.
    """
    progress, entries = Progress(on_progress), publisher_urls or urls
    roamers = [
        Roamer(n, *wish, urls=urls, seed=seed, on_progress=on_progress) for n, wish in enumerate(FILTERS.items())
    ]
    async with asyncio.TaskGroup() as everybody:
        for roamer in roamers:
            everybody.create_task(roamer.roam())
        for roamer in roamers:
            await roamer.started.wait()
        async with asyncio.TaskGroup() as publishers:
            for n, topic in enumerate(TOPICS):
                publishers.create_task(publish_all(n, topic, count, entries[n % len(entries)], progress))
            await trouble(progress)
        await publish_ends(urls[0], TOPICS, roamers)
    for roamer in roamers:
        roamer.unknown = progress.unknown
    return roamers
