"""Six clients move between three nodes, while their broker is frozen, killed and disconnected, and the nodes are killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from support.broker_server import BrokerServer
from support.processes import NodeProcess
from support.roaming import TOPICS, Progress, Roamer, roam
from support.timeouts import HANG_S, progress_timeout

FAULTS = ("freeze", "down", "cut", "node")
"""The server is frozen, killed and started later, or disconnected, and nodes are killed."""


@dataclass(kw_only=True)
class Scenario:
    """One run.

    Attributes:
        server: The server, which is started.
        url: URL of the broker for the nodes, with options.
        seed: Seed of all random choices.
        cut: Function that cuts the nodes' connections. It blocks.
        faults: Which of `FAULTS` happen.
        count: Number of messages of each topic.
        frozen_s: How long the server is frozen, in seconds.
        down_s: How long the server is down, in seconds.
        nodes: Number of nodes.
    """

    server: BrokerServer
    url: str
    seed: int
    cut: Callable[[], object]
    faults: Collection[str] = FAULTS
    count: int = 300
    frozen_s: float = 20.0
    down_s: float = 15.0
    nodes: int = 3
    _rng: random.Random = field(init=False)
    _running: list[NodeProcess] = field(init=False)
    _starting: defaultdict[NodeProcess, asyncio.Lock] = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._starting = defaultdict(asyncio.Lock)

    async def run(self) -> list[Roamer]:
        """Play the scenario, and return the clients."""
        async with AsyncExitStack() as stack, progress_timeout(2 * HANG_S) as on_progress:
            nodes = [NodeProcess.open(self.url, patience_s=HANG_S) for _ in range(self.nodes)]
            self._running = [await stack.enter_async_context(node) for node in nodes]
            await asyncio.gather(*(node.start() for node in self._running))
            on_progress()
            urls = [node.url for node in self._running]
            return await roam(
                urls,
                seed=self.seed,
                count=self.count,
                trouble=self._trouble,
                on_progress=on_progress,
                publisher_urls=urls[:-1],
            )

    async def _trouble(self, progress: Progress) -> None:
        async with asyncio.TaskGroup() as kills:
            for node in self._running if "node" in self.faults else ():
                kills.create_task(self._kill_later(node, progress))
            await self._disturb_broker(progress)

    async def _disturb_broker(self, progress: Progress) -> None:
        known: dict[str, list[Callable[[], Awaitable[None]]]] = {
            "freeze": [self._freeze],
            "down": [self._take_down],
            "cut": [self._cut, self._cut],
        }
        steps = [step for fault in known if fault in self.faults for step in known[fault]]
        self._rng.shuffle(steps)
        for number, step in enumerate(steps, 1):
            await progress.reach(number * self._total // (len(steps) + 2))
            await step()
            progress.on_progress()

    @property
    def _total(self) -> int:
        return self.count * len(TOPICS)

    async def _freeze(self) -> None:
        await self._outage(self.server.freeze, self.server.thaw, self.frozen_s)

    async def _take_down(self) -> None:
        await self._outage(self.server.kill, self.server.start, self.down_s)

    async def _outage(self, begin: Callable[[], None], end: Callable[[], None], duration_s: float) -> None:
        """Kill a node at some moment of an outage. It serves again after the outage."""
        node, after_s = self._rng.choice(self._running), self._rng.uniform(0, duration_s)
        await asyncio.to_thread(begin)
        async with asyncio.TaskGroup() as group:
            await asyncio.sleep(after_s)
            if "node" in self.faults:
                group.create_task(self._kill(node))
            await asyncio.sleep(duration_s - after_s)
            await asyncio.to_thread(end)

    async def _cut(self) -> None:
        await asyncio.to_thread(self.cut)

    async def _kill_later(self, node: NodeProcess, progress: Progress) -> None:
        await progress.reach(self._rng.randint(self._total // 10, self._total * 9 // 10))
        await self._kill(node)
        progress.on_progress()

    async def _kill(self, node: NodeProcess) -> None:
        """Kill a node, and start it again. A node that another task starts is killed when it serves."""
        async with self._starting[node]:
            await node.kill()
            await node.start()


def summary(roamers: list[Roamer], count: int) -> Counter[str]:
    """Return the numbers of holes, repeats, wrong orders, gaps, changes of the node, and publishes that gave up."""
    found: Counter[str] = Counter({"hole": 0, "repeat": 0, "order": 0, "gap": 0})
    for roamer in roamers:
        found["hops"] += roamer.hops
        found["unknown"] = len(roamer.unknown)
        found["gap"] += len(roamer.gaps)
        for text in roamer.violations(count):
            found.update(kind for kind in ("hole", "repeat", "order") if f": {kind} in " in text)
    return found
