"""Six clients move between two nodes in two processes on one Redis. The nodes and Redis are killed and disconnected."""

from __future__ import annotations

import asyncio

import pytest
from integration.test_roaming import new_seed, run
from services.redis import PrivateRedis
from support.processes import NodeProcess


async def trouble(redis: PrivateRedis, rounds: int) -> None:
    """Cut the connections repeatedly and kill the server once, while `run` kills the nodes."""
    for number in range(rounds):
        await asyncio.sleep(0.3)  # spaces the faults, and waits for no result
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
    seed, count = new_seed(), 300
    try:
        async with asyncio.TaskGroup() as group:
            faults = group.create_task(trouble(redis, 5))
            url = redis.url + "?partitions=1&probe_s=200ms&dead_s=1s"
            roamers = await run(url, seed, count)
            await faults
    finally:
        redis.remove()
    for roamer in roamers:  # a client that resumed while Redis was unavailable received a gap
        assert roamer.gaps or not roamer.faults(count)
        assert {gap.reason for gap in roamer.gaps} <= {"unavailable"}
    assert all(roamer.hops > 1 for roamer in roamers)
