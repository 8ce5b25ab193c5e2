"""Six clients move between two nodes in two processes on one Redis. The nodes and Redis are killed and disconnected."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from services.redis import PrivateRedis
from support.broker_server import running
from support.killed_nodes import TOTAL, check_with_server_faults, check_with_short_tokens
from support.processes import NodeProcess
from support.roaming import Progress
from support.seeds import new_seed


async def trouble(redis: PrivateRedis, progress: Progress) -> None:
    """Cut the connections repeatedly and kill the server once, while `run` kills the nodes."""
    rounds = 5
    for number in range(rounds):
        await progress.reach((number + 1) * TOTAL // (rounds + 2))
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
    """Each client receives each message once and in order, without a gap."""
    async with running(PrivateRedis(aof=True)) as redis:
        url = redis.url + "?partitions=1&probe_s=200ms&dead_s=1s"
        await check_with_server_faults(url, partial(trouble, redis))


@pytest.mark.anyio
async def test_roaming_with_two_second_tokens_has_no_hole() -> None:
    """Half of the clients refresh their tokens. The others are closed with 4002, reconnect and resume."""
    async with running(PrivateRedis(aof=True)) as redis:
        await check_with_short_tokens(redis.url + "?partitions=1", new_seed())
