"""Six clients hop between two nodes in two processes on one Redis; the nodes are killed, and Redis is cut off and killed."""

from __future__ import annotations

import asyncio

import pytest
from integration.test_roaming import new_seed, run
from services.redis import PrivateRedis
from support.processes import NodeProcess


async def trouble(redis: PrivateRedis, rounds: int) -> None:
    """Cut the connections again and again, and kill the server once, while the nodes are killed by `run`."""
    for number in range(rounds):
        await asyncio.sleep(0.3)  # a fault, not a wait: the clients are in the middle of their work, wherever that is
        if number == rounds // 2:
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
        elif number % 2:
            await asyncio.to_thread(redis.command, "CLIENT", "KILL", "TYPE", "pubsub")
        else:
            await asyncio.to_thread(redis.command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.mark.anyio
async def test_a_node_that_finds_no_redis_ends_and_one_started_again_when_it_is_back_serves() -> None:
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
async def test_roamers_on_a_redis_that_is_cut_off_and_killed_get_everything_once_in_order() -> None:
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
    for roamer in roamers:  # who came back while Redis was away was told so
        assert roamer.gaps or not roamer.faults(count)
        assert {gap.reason for gap in roamer.gaps} <= {"unavailable"}
    assert all(roamer.hops > 1 for roamer in roamers)
