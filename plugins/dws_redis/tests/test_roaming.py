"""Six clients move between two nodes in two processes on one Redis. The nodes and Redis are killed and disconnected."""

from __future__ import annotations

import asyncio

import pytest
from integration.test_roaming import TOPICS, new_seed, run
from services.redis import PrivateRedis
from support.processes import NodeProcess
from support.roaming import Progress

COUNT = 300


async def trouble(redis: PrivateRedis, progress: Progress) -> None:
    """Cut the connections repeatedly and kill the server once, while `run` kills the nodes."""
    rounds = 5
    for number in range(rounds):
        await progress.reach((number + 1) * COUNT * len(TOPICS) // (rounds + 2))
        if number == rounds // 2:
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
        elif number % 2:
            await asyncio.to_thread(redis.command, "CLIENT", "KILL", "TYPE", "pubsub")
        else:
            await asyncio.to_thread(redis.command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.mark.anyio
async def test_node_without_redis_exits_and_restart_serves() -> None:
    redis = PrivateRedis()

    class Supervised(NodeProcess):
        async def launch(self, *, die_after: int = 0) -> bool:
            served = await super().launch(die_after=die_after)
            if not served:
                await asyncio.to_thread(redis.start)
            return served

    try:
        async with Supervised.open(redis.url) as node:
            await node.start()
    finally:
        redis.remove()


@pytest.mark.anyio
async def test_roaming_survives_redis_faults() -> None:
    """Each client receives each message once and in order, or the gap `unavailable`."""
    redis = PrivateRedis(aof=True)
    redis.start()
    url = redis.url + "?partitions=1&probe_s=200ms&dead_s=1s"
    try:
        roamers = await run(url, new_seed(), COUNT, trouble=lambda progress: trouble(redis, progress))
    finally:
        redis.remove()
    for roamer in roamers:  # a client that resumed while Redis was unavailable received a gap
        assert roamer.gaps or not roamer.violations(COUNT)
        assert {gap.reason for gap in roamer.gaps} <= {"unavailable"}
    assert all(roamer.hops > 1 for roamer in roamers)
