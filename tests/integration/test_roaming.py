"""Six clients move between two nodes in two processes that are killed under load."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.fault_scenarios import Server
from support.processes import NodeProcess
from support.roaming import Progress, Roamer, publish_all, publish_ends
from support.timeouts import progress_timeout

TOPICS = [f"t/{n}" for n in range(4)]
SERVER_COUNT = 300
SERVER_TOTAL = SERVER_COUNT * len(TOPICS)
"""Number of messages of each topic, and of all, where the server of the broker has faults."""
FROZEN_S = 6.0
_LOOK_S = 1.0
FILTERS = {"#": TOPICS, "t/#": TOPICS, "t/+": TOPICS, "+/0": TOPICS[:1], "t/1": TOPICS[1:2], "t/2": TOPICS[2:3]}


def new_seed() -> int:
    """Return a seed. pytest shows it if the test fails."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    return seed


async def none(progress: Progress) -> None:
    """Do nothing more than `run` does by itself."""


async def run(
    url: str,
    seed: int,
    count: int,
    *patches: str,
    trouble: Callable[[Progress], Awaitable[None]] = none,
    window: int = 4,
) -> list[Roamer]:
    """Play the whole scenario, and return the roamers.

    One node is killed from outside after some acknowledged messages. The other kills itself after some stored messages,
    before it sends the reply. Both are restarted at once. `trouble` runs while clients publish.
    """
    rng = random.Random(seed)
    total = count * len(TOPICS)
    async with AsyncExitStack() as stack, progress_timeout() as on_progress:
        progress = Progress(on_progress)
        nodes = [await stack.enter_async_context(NodeProcess.open(url, *patches)) for _ in range(2)]
        a, b = nodes
        urls = [node.url for node in nodes]
        async with asyncio.TaskGroup() as starting:
            starting.create_task(a.start())
            starting.create_task(b.start(die_after=rng.randint(total // 8, total // 4)))
        on_progress()
        roamers = [
            Roamer(n, *wish, urls=urls, seed=seed, on_progress=on_progress) for n, wish in enumerate(FILTERS.items())
        ]
        async with asyncio.TaskGroup() as everybody:
            for roamer in roamers:
                everybody.create_task(roamer.roam())
            for roamer in roamers:
                await roamer.started.wait()
            killing = everybody.create_task(kill_both(a, b, progress, rng.randint(total // 2, 3 * total // 4)))
            async with asyncio.TaskGroup() as publishers:
                for n, topic in enumerate(TOPICS):
                    publishers.create_task(publish_all(n, topic, count, urls[n % 2], progress, window=window))
                await trouble(progress)
            await killing
            await publish_ends(a.url, TOPICS, roamers)
    for roamer in roamers:
        roamer.unknown = progress.unknown
    return roamers


async def kill_both(a: NodeProcess, b: NodeProcess, progress: Progress, when: int) -> None:
    await b.wait_exited()
    await b.start()
    await progress.reach(when)
    await a.kill()
    await a.start()


async def check_with_server_faults(url: str, trouble: Callable[[Progress], Awaitable[None]]) -> None:
    """Check that each client receives each message once and in order, without a gap."""
    roamers = await run(url, new_seed(), SERVER_COUNT, trouble=trouble)
    assert [fault for roamer in roamers for fault in roamer.violations(SERVER_COUNT)] == []
    assert all(roamer.hops > 1 for roamer in roamers)


async def freeze_and_kill(server: Server, down_s: float, progress: Progress) -> None:
    """Freeze a server for a while, then kill it, while `run` kills the nodes."""
    await progress.reach(SERVER_TOTAL // 4)
    await asyncio.to_thread(server.freeze)
    await asyncio.sleep(FROZEN_S)
    await asyncio.to_thread(server.thaw)
    await progress.reach(SERVER_TOTAL * 5 // 8)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(down_s)
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(asyncio.to_thread(server.start))
        while not starting.done():  # it may take longer than the test waits for progress, and has a limit of its own
            progress.on_progress()
            await asyncio.wait([starting], timeout=_LOOK_S)


@pytest.mark.parametrize("patches", [(), ("read-all-from-the-broker",)], ids=["memory", "broker"])
async def test_roaming_survives_node_kill(tmp_path: Path, patches: tuple[str, ...]) -> None:
    """Each client receives each message once and in order."""
    seed, count = new_seed(), 500
    roamers = await run(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", seed, count, *patches)
    assert [fault for roamer in roamers for fault in roamer.violations(count)] == []
    assert all(roamer.hops > 3 for roamer in roamers)


@pytest.mark.parametrize(
    ("patches", "kinds"),
    [
        (("forget-the-past",), {"hole"}),
        (("ignore-keys",), {"repeat"}),
        (("let-live-messages-overtake", "read-all-from-the-broker"), {"hole", "order"}),
    ],
    ids=["forget-the-past", "ignore-keys", "let-live-messages-overtake"],
)
async def test_roaming_test_detects_broken_rule(tmp_path: Path, patches: tuple[str, ...], kinds: set[str]) -> None:
    seed, count = new_seed(), 400
    roamers = await run(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", seed, count, *patches)
    faults = [fault for roamer in roamers for fault in roamer.violations(count)]
    assert {kind for kind in kinds if any(f": {kind} in " in fault for fault in faults)}, faults
