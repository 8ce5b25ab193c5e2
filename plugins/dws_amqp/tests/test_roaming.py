"""Six clients move between two nodes in two processes on one RabbitMQ. Everything is killed, RabbitMQ also freezes."""

from __future__ import annotations

import asyncio

import pytest
from integration.test_roaming import TOPICS, new_seed, run
from services.rabbitmq import PrivateRabbit
from support.roaming import Progress

COUNT = 300
FROZEN_S = 6.0


async def trouble(rabbit: PrivateRabbit, progress: Progress) -> None:
    """Freeze the server for a while, then kill it, while `run` kills the nodes."""
    total = COUNT * len(TOPICS)
    await progress.reach(total // 4)
    await asyncio.to_thread(rabbit.freeze)
    await asyncio.sleep(FROZEN_S)
    await asyncio.to_thread(rabbit.thaw)
    await progress.reach(total * 5 // 8)
    await asyncio.to_thread(rabbit.kill)
    await asyncio.to_thread(rabbit.start)  # takes longer than 3 seconds


@pytest.mark.anyio
async def test_roaming_survives_rabbitmq_faults() -> None:
    """Each client receives each message once and in order, or the gap `unavailable`."""
    rabbit = PrivateRabbit()
    try:
        await asyncio.to_thread(rabbit.start)
        url = rabbit.url + "?partitions=1&probe_s=200ms&dead_s=2s"
        roamers = await run(url, new_seed(), COUNT, trouble=lambda progress: trouble(rabbit, progress), window=1)
    finally:
        rabbit.remove()
    for roamer in roamers:  # a client that resumed while RabbitMQ was unavailable received a gap
        assert roamer.gaps or not roamer.violations(COUNT)
        assert {gap.reason for gap in roamer.gaps} <= {"unavailable"}
    assert all(roamer.hops > 1 for roamer in roamers)
