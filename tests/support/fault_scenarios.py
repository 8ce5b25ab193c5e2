"""Faults of a server under load, the same for every broker: what may be lost, repeated and reported."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

from support.broker_load import Load, Node, check, two_nodes, wait_for_end
from support.broker_server import BrokerServer, S

from dws_core.plugin import Layout

Nodes: TypeAlias = AbstractAsyncContextManager[tuple[Node, Node]]
"""Two nodes on a new channel that notice faults quickly."""


Trouble: TypeAlias = Callable[[S, Load], Awaitable[None]]
"""Causes a fault during a load, and returns when the load has made progress after it, or when the next one may follow."""


def near(url: str, *, dead_s: str = "2s", **options: str) -> Nodes:
    """Start two nodes on a new channel that notice faults quickly."""
    layout = Layout(channel=f"faults-{secrets.token_hex(4)}", partitions=2)
    query = "&".join(f"{name}={value}" for name, value in {"probe_s": "200ms", "dead_s": dead_s, **options}.items())
    return two_nodes(f"{url}?{query}", layout)


@asynccontextmanager
async def publishing(*loads: Load) -> AsyncIterator[None]:
    """Run loads on both partitions during the block."""
    async with asyncio.TaskGroup() as group:
        for load in loads:
            for partition in (0, 1):
                group.create_task(load.run(partition))
        yield
        for load in loads:
            load.stopping = True


async def repeat(cut: Callable[[], object], load: Load) -> None:
    """Break connections five times."""
    for _ in range(5):
        await asyncio.to_thread(cut)
        await load.wait_for_acks(100)


async def kill_9(server: BrokerServer, load: Load) -> None:
    """Kill the server like a crash, and start it again."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await load.wait_for_acks(100)


async def kill_9_twice(server: BrokerServer, load: Load) -> None:
    """Kill the server twice."""
    for _ in range(2):
        await kill_9(server, load)


async def freeze(server: BrokerServer, load: Load) -> None:
    """Freeze the server until the node reports that it does not reply."""
    await asyncio.to_thread(server.freeze)
    try:
        await load.node.until(lambda: load.node.states[-1] == "degraded")
    finally:
        await asyncio.to_thread(server.thaw)


async def under_load(nodes: Nodes, trouble: Callable[[Load], Awaitable[None]]) -> tuple[Load, Node]:
    """Publish on one node and listen on the other during a fault. Return when all messages have arrived."""
    async with nodes as (sender, listener):
        load = Load(sender)
        async with publishing(load):
            await load.wait_for_acks(200)
            await trouble(load)
            await load.wait_for_acks(200)
        await wait_for_end(sender, listener)
        return load, listener


async def loses_and_repeats_nothing(nodes: Nodes, server: S, trouble: Trouble[S]) -> None:
    """Check that a fault is invisible, except for the delay."""
    load, listener = await under_load(nodes, lambda load: trouble(server, load))
    check(load, listener)
    assert listener.losses == [], "and nothing is reported as lost"
    assert (load.unknown, load.refused) == (set(), 0), "every publish was repeated until it was answered"


async def random_faults_lose_and_repeat_nothing(
    nodes: Nodes, server: S, troubles: Sequence[Trouble[S]], *, seed: int, count: int
) -> None:
    """Check the same for a random sequence of faults, while both nodes publish."""
    chance = random.Random(seed)
    async with nodes as (one, other):
        loads = Load(one, name=b"one"), Load(other, name=b"other")
        async with publishing(*loads):
            for trouble in chance.choices(troubles, k=count):
                sys.stdout.write(f"{trouble.__name__}\n")  # type: ignore[attr-defined]  # troubles are functions
                await trouble(server, chance.choice(loads))
                for _ in range(chance.randrange(3)):  # if 0, the next fault follows at once
                    await loads[0].wait_for_acks(20)
            for load in loads:
                await load.wait_for_acks(100)
        await wait_for_end(one, other)
        await wait_for_end(other, one)
        for load in loads:
            assert (load.unknown, load.refused) == (set(), 0)
            for node in (one, other):
                check(load, node)
        assert one.losses == other.losses == []
