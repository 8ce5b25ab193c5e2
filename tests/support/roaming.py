"""Clients that move from node to node, publishers that continue during faults, and the checks at the end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, TypeAlias

from support.clients import client
from support.timeouts import HANG_S

from dws_core import PublishOutcomeUnknown
from dws_core.client import Client, Gap, Message

MakeClient: TypeAlias = Callable[..., Client]
"""Returns a client for a URL and a name, with further arguments of `Client`."""

TOPICS = [f"t/{n}" for n in range(4)]
FILTERS = {"#": TOPICS, "t/#": TOPICS, "t/+": TOPICS, "+/0": TOPICS[:1], "t/1": TOPICS[1:2], "t/2": TOPICS[2:3]}
"""The filter of each roamer, and the topics that it receives."""

_STAY: Final = (3, 30)
_STAY_WITH_TOKENS: Final = (100, 400)
_PAUSE_WITH_TOKENS_S: Final = 0.04

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


class Tokens:
    """Tokens of clients that expire after seconds. Every second client cannot refresh its token, so it reconnects.

    Attributes:
        sent: Number of tokens that each client has sent, in handshakes and refreshes.
    """

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    def client(self, url: str, name: str, **kwargs: Any) -> Client:
        """Return a client with tokens."""

        def token() -> str:
            self.sent[name] += 1
            return name

        made = client(url, token=token, **kwargs)
        if int(name.rpartition("-")[2]) % 2:
            made._refreshing.begin = lambda: None  # type: ignore[method-assign]
        return made


def without_tokens(url: str, name: str, **kwargs: Any) -> Client:
    """Return a client without a token."""
    return client(url, **kwargs)


class Roamer:
    """A client that changes its node after a few messages, and resumes from the last message that it handled.

    Args:
        on_progress: Function that is called for each new message.
        stay: Minimum and maximum number of messages after which it changes its node.
        make_client: Function that returns a client for a URL and a name.

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
        stay: tuple[int, int] = _STAY,
        make_client: MakeClient = without_tokens,
    ) -> None:
        self._stay = stay
        self._make_client = make_client
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
            name = f"roamer-{self.number}"
            url = f"{self._urls[(self.hops + self.number) % len(self._urls)]}/ws/{name}"
            alice = self._make_client(
                url, name, cursor=self._cursor, on_gap=self.gaps.append, connect_timeout_s=_PATIENCE_S
            )
            messages = alice.subscribe(self._filter)
            async with alice:
                self._cursor = self._cursor or alice.cursor
                self.started.set()
                room = self._rng.randint(*self._stay)
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


async def publish_all(
    number: int,
    topic: str,
    count: int,
    url: str,
    progress: Progress,
    *,
    pause_s: float = 0.0,
    make_client: MakeClient = without_tokens,
) -> None:
    """Publish `0 … count - 1`, a few at a time, with a pause before each, also while the node is down."""
    name = f"publisher-{number}"
    publisher = make_client(f"{url}/ws/{name}", name, window=4, connect_timeout_s=_PATIENCE_S)

    async def publish(n: int) -> None:
        try:
            await publisher.publish(topic, n, timeout_s=_PATIENCE_S)
        except PublishOutcomeUnknown:
            progress.unknown.add((topic, n))
        progress.step()

    async with publisher, asyncio.TaskGroup() as group:
        for n in range(count):
            await asyncio.sleep(pause_s)
            group.create_task(publish(n))


async def publish_ends(
    url: str, topics: Collection[str], roamers: Collection[Roamer], make_client: MakeClient = without_tokens
) -> None:
    """Let the roamers settle, and publish the end of every topic until all have received it."""
    for roamer in roamers:
        roamer.settled = True
    async with make_client(f"{url}/ws/last", "last-0", connect_timeout_s=_PATIENCE_S) as publisher:
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
    tokens: Tokens | None = None,
) -> list[Roamer]:
    """Let six clients move between nodes while publishers publish to every topic. Return the clients.

    Args:
        urls: URLs of the nodes.
        seed: Seed of all random choices.
        count: Number of messages of each topic.
        trouble: Causes faults while clients publish.
        on_progress: Function that is called after each progress.
        publisher_urls: URLs of the nodes of the publishers. If empty, all nodes.
        tokens: Tokens of the clients. With them, clients stay and publishers pause, so that tokens expire.
    """
    make_client = tokens.client if tokens else without_tokens
    stay, pause_s = (_STAY_WITH_TOKENS, _PAUSE_WITH_TOKENS_S) if tokens else (_STAY, 0.0)
    progress, entries = Progress(on_progress), publisher_urls or urls
    roamers = [
        Roamer(n, *wish, urls=urls, seed=seed, on_progress=on_progress, stay=stay, make_client=make_client)
        for n, wish in enumerate(FILTERS.items())
    ]
    async with asyncio.TaskGroup() as everybody:
        for roamer in roamers:
            everybody.create_task(roamer.roam())
        for roamer in roamers:
            await roamer.started.wait()
        async with asyncio.TaskGroup() as publishers:
            for n, topic in enumerate(TOPICS):
                url = entries[n % len(entries)]
                publishing = publish_all(n, topic, count, url, progress, pause_s=pause_s, make_client=make_client)
                publishers.create_task(publishing)
            await trouble(progress)
        await publish_ends(urls[0], TOPICS, roamers, make_client)
    for roamer in roamers:
        roamer.unknown = progress.unknown
    return roamers
