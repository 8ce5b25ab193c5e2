"""Six clients move between three nodes, whose brokers become unreachable or freeze, one by one and all together."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from dws_memory import MemoryBroker
from support.apps import HISTORY, chat_app
from support.roaming import TOPICS, Progress, Roamer, roam
from support.seeds import new_seed
from support.servers import serve
from support.timeouts import progress_timeout

from dws_core import BrokerURL, Limits, WebSocketManager
from dws_core.plugin import LogBroker
from dws_core.testing import FaultyBroker

sys.path.append(str(Path(__file__).parents[2] / "examples/dws_sqlite/src"))
from dws_sqlite._broker import SQLiteBroker

COUNT = 100
OUTAGE_S = 1.0
PATIENCE_S = 0.4


@asynccontextmanager
async def nodes(
    make: Callable[[], LogBroker],
) -> AsyncIterator[tuple[list[FaultyBroker], list[str], list[WebSocketManager]]]:
    """Serve three nodes, and yield their brokers, URLs and managers."""
    brokers = [FaultyBroker(make()) for _ in range(3)]
    limits = Limits(messages_per_s=None, resume_patience_s=PATIENCE_S)
    managers = [WebSocketManager("chat", broker=broker, history=HISTORY, limits=limits) for broker in brokers]
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serve(chat_app(manager))) for manager in managers]
        yield brokers, [server.url for server in servers], managers


async def trouble(
    brokers: list[FaultyBroker], managers: list[WebSocketManager], rng: random.Random, progress: Progress
) -> None:
    """Let some or all brokers be away for a while, and close the connections of a node."""
    rounds = 5
    for number in range(1, rounds + 1):
        await progress.reach(number * COUNT * len(TOPICS) // (rounds + 1))
        away = brokers if number == rounds else rng.sample(brokers, rng.randint(1, 3))
        async with AsyncExitStack() as faults:
            for broker in away:
                if rng.random() < 0.5:
                    await faults.enter_async_context(broker.unreachable())
                else:
                    faults.enter_context(broker.frozen())
            for connection in rng.choice(managers).active_connections:
                connection.disconnect(4000)
            await asyncio.sleep(OUTAGE_S)
        progress.on_progress()


async def run(make: Callable[[], LogBroker], seed: int) -> list[Roamer]:
    """Play the scenario, and return the roamers."""
    async with nodes(make) as (brokers, urls, managers), progress_timeout() as on_progress:
        faults = partial(trouble, brokers, managers, random.Random(seed))
        return await roam(urls, seed=seed, count=COUNT, trouble=faults, on_progress=on_progress)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_roaming_survives_outages_without_gap(kind: str, tmp_path: Path) -> None:
    """Each client receives each message once and in order."""
    seed = new_seed()

    def make() -> LogBroker:
        if kind == "memory":
            return MemoryBroker(f"roaming-outage-{seed}")
        return SQLiteBroker.from_url(BrokerURL.parse(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s"))

    roamers = await run(make, seed)
    assert [fault for roamer in roamers for fault in roamer.violations(COUNT)] == []
    assert all(roamer.hops > 1 for roamer in roamers)
