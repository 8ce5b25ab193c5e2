"""Six clients move between three nodes, while their broker is frozen, killed and disconnected, and the nodes are killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field

from support.broker_server import BrokerServer
from support.processes import NodeProcess
from support.roaming import TOPICS, Progress, Roamer, roam
from support.timeouts import HANG_S, progress_timeout


@dataclass(kw_only=True)
class Scenario:
    """One run.

    Attributes:
        server: The server, which is started.
        url: URL of the broker for the nodes, with options.
        seed: Seed of all random choices.
        cut: Function that cuts the nodes' connections. It blocks.
        count: Number of messages of each topic.
        frozen_s: How long the server is frozen, in seconds.
        down_s: How long the server is down, in seconds.
        nodes: Number of nodes.
    """

    server: BrokerServer
    url: str
    seed: int
    cut: Callable[[], object]
    count: int = 300
    frozen_s: float = 20.0
    down_s: float = 15.0
    nodes: int = 3
    _rng: random.Random = field(init=False)
    _running: list[NodeProcess] = field(init=False)
    _outage: asyncio.Lock = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._outage = asyncio.Lock()

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
            for number, node in enumerate(self._running):
                kills.create_task(self._kill_node(number, node, progress))
            await self._disturb_broker(progress)

    async def _disturb_broker(self, progress: Progress) -> None:
        steps: list[Callable[[], Awaitable[None]]] = [self._freeze, self._take_down, self._cut, self._cut]
        self._rng.shuffle(steps)
        for number, step in enumerate(steps, 1):
            await progress.reach(number * self._total // (len(steps) + 2))
            await step()
            progress.on_progress()

    @property
    def _total(self) -> int:
        return self.count * len(TOPICS)

    async def _freeze(self) -> None:
        async with self._outage:
            await asyncio.to_thread(self.server.freeze)
            await asyncio.sleep(self.frozen_s)
            await asyncio.to_thread(self.server.thaw)

    async def _take_down(self) -> None:
        async with self._outage:
            await asyncio.to_thread(self.server.kill)
            await asyncio.sleep(self.down_s)
            await asyncio.to_thread(self.server.start)

    async def _cut(self) -> None:
        await asyncio.to_thread(self.cut)

    async def _kill_node(self, number: int, node: NodeProcess, progress: Progress) -> None:
        """Kill a node at some moment, and start it again.

        The last node may be killed during an outage. The nodes of the publishers are not, because a publish that has no
        connection for 50 seconds gives up: nobody would remember its key any more.
        """
        await progress.reach(self._rng.randint(self._total // 10, self._total * 9 // 10))
        async with nullcontext() if number == self.nodes - 1 else self._outage:
            await node.kill()
            await node.start()
        progress.on_progress()


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
