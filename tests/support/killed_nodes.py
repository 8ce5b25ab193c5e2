"""Six clients that move between two nodes in two processes that are killed under load, and faults of their broker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from support.broker_server import BrokerServer, running
from support.processes import NodeProcess
from support.roaming import TOPICS, Progress, Roamer, Tokens, roam
from support.seeds import new_seed
from support.timeouts import progress_timeout

COUNT: Final = 300
TOTAL: Final = COUNT * len(TOPICS)
"""Number of messages of each topic, and of all, where the server of the broker has faults."""

_FROZEN_S: Final = 6.0
_LOOK_S: Final = 1.0
_TOKEN_S: Final = 2.0


async def none(progress: Progress) -> None:
    """Do nothing more than kill the nodes."""


async def roam_between_killed_nodes(
    url: str,
    seed: int,
    count: int,
    *patches: str,
    trouble: Callable[[Progress], Awaitable[None]] = none,
    tokens: Tokens | None = None,
) -> list[Roamer]:
    """Play the whole scenario, and return the roamers.

    One node is killed from outside after some acknowledged messages. The other kills itself after some stored messages,
    before it sends the reply. Both are restarted at once. `trouble` runs while clients publish.
    """
    rng = random.Random(seed)
    total, token_s = count * len(TOPICS), _TOKEN_S if tokens else 0.0
    async with AsyncExitStack() as stack, progress_timeout() as on_progress:
        a, b = [await stack.enter_async_context(NodeProcess.open(url, *patches, token_s=token_s)) for _ in range(2)]
        async with asyncio.TaskGroup() as starting:
            starting.create_task(a.start())
            starting.create_task(b.start(die_after=rng.randint(total // 8, total // 4)))
        on_progress()
        when = rng.randint(total // 2, 3 * total // 4)

        async def kill_and_trouble(progress: Progress) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(_kill_both(a, b, progress, when))
                await trouble(progress)

        urls = [a.url, b.url]
        return await roam(
            urls, seed=seed, count=count, trouble=kill_and_trouble, on_progress=on_progress, tokens=tokens
        )


async def _kill_both(a: NodeProcess, b: NodeProcess, progress: Progress, when: int) -> None:
    await b.wait_exited()
    await b.start()
    await progress.reach(when)
    await a.kill()
    await a.start()


async def check_with_server_faults(url: str, trouble: Callable[[Progress], Awaitable[None]]) -> None:
    """Check that each client receives each message once and in order, without a gap."""
    roamers = await roam_between_killed_nodes(url, new_seed(), COUNT, trouble=trouble)
    assert [fault for roamer in roamers for fault in roamer.violations(COUNT)] == []
    assert all(roamer.hops > 1 for roamer in roamers)


async def check_with_short_tokens(url: str, seed: int) -> None:
    """Check that clients whose tokens expire every two seconds miss, repeat and reorder nothing while nodes die."""
    tokens = Tokens()
    roamers = await roam_between_killed_nodes(url, seed, COUNT, tokens=tokens)
    assert [fault for roamer in roamers for fault in roamer.violations(COUNT)] == []
    assert all(roamer.hops > 0 for roamer in roamers)
    assert all(tokens.sent[f"publisher-{n}"] > 2 for n in range(len(TOPICS))), tokens.sent
    assert sum(tokens.sent[f"roamer-{roamer.number}"] - roamer.hops for roamer in roamers) > 6, tokens.sent


async def check_with_frozen_and_killed_server(server: BrokerServer, *, down_s: float) -> None:
    """Check the same with a server that freezes and is killed. It is down for `down_s` and the time of its start."""
    async with running(server):
        url = server.url + "?partitions=1&probe_s=200ms&dead_s=2s"
        await check_with_server_faults(url, partial(_freeze_and_kill, server, down_s))


async def _freeze_and_kill(server: BrokerServer, down_s: float, progress: Progress) -> None:
    await progress.reach(TOTAL // 4)
    await asyncio.to_thread(server.freeze)
    await asyncio.sleep(_FROZEN_S)
    await asyncio.to_thread(server.thaw)
    await progress.reach(TOTAL * 5 // 8)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(down_s)
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(asyncio.to_thread(server.start))
        while not starting.done():  # it may take longer than the test waits for progress, and has a limit of its own
            progress.on_progress()
            await asyncio.wait([starting], timeout=_LOOK_S)
