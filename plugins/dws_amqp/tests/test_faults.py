"""Faults of a RabbitMQ under load: every acknowledged message arrives once and in order, or a gap is reported."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from services.rabbitmq import PrivateRabbit
from support.broker_load import Load, check, check_after_last_gap, wait_for_end
from support.fault_scenarios import (
    Trouble,
    freeze,
    kill_9,
    kill_9_twice,
    loses_and_repeats_nothing,
    near,
    publishing,
    random_faults_lose_and_repeat_nothing,
    repeat,
    under_load,
)
from support.seeds import new_seed
from support.timeouts import HANG_S

from dws_core.plugin import GapReason


def _close(rabbit: PrivateRabbit, name: str) -> None:
    assert rabbit.close_connections(name) > 0


async def close_reading(rabbit: PrivateRabbit, load: Load) -> None:
    await repeat(partial(_close, rabbit, "reading"), load)


async def close_publishing(rabbit: PrivateRabbit, load: Load) -> None:
    await repeat(partial(_close, rabbit, "publishing"), load)


async def close_all(rabbit: PrivateRabbit, load: Load) -> None:
    await repeat(partial(_close, rabbit, ""), load)


async def kill_writers(rabbit: PrivateRabbit, load: Load) -> None:
    """Kill the processes inside RabbitMQ that write the streams. The connections stay open."""
    for _ in range(3):
        await asyncio.to_thread(rabbit.kill_stream_writers)
        await load.wait_for_acks(100)


async def memory_alarm(rabbit: PrivateRabbit, load: Load) -> None:
    await _alarm(rabbit, load, "memory")


async def disk_alarm(rabbit: PrivateRabbit, load: Load) -> None:
    await _alarm(rabbit, load, "disk")


async def _alarm(rabbit: PrivateRabbit, load: Load, kind: str) -> None:
    await asyncio.to_thread(rabbit.raise_alarm, kind)
    try:
        await load.node.until(lambda: load.node.states[-1] == "blocked")
    finally:
        await asyncio.to_thread(rabbit.clear_alarm, kind)
    await load.node.until(lambda: load.node.states[-1] == "live")


TROUBLES: list[Trouble[PrivateRabbit]] = [
    *(close_reading, close_publishing, close_all),
    *(kill_9_twice, kill_writers, freeze, memory_alarm, disk_alarm),
]


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_fault_under_load_loses_and_repeats_nothing(
    rabbit: PrivateRabbit, trouble: Trouble[PrivateRabbit]
) -> None:
    await loses_and_repeats_nothing(near(rabbit.url), rabbit, trouble)


@pytest.mark.anyio
async def test_random_faults_lose_and_repeat_nothing(rabbit: PrivateRabbit) -> None:
    troubles = [kill_9 if trouble is kill_9_twice else trouble for trouble in TROUBLES]
    await random_faults_lose_and_repeat_nothing(near(rabbit.url), rabbit, troubles, seed=new_seed(), count=6)


@pytest.mark.anyio
async def test_recreated_stream_is_new_epoch(rabbit: PrivateRabbit) -> None:
    async def delete(load: Load) -> None:
        for name in rabbit.queues():
            if ".log." in name:
                await asyncio.to_thread(rabbit.delete_queue, name)
        await load.wait_for_acks(200)

    load, listener = await under_load(near(rabbit.url), delete)
    assert set(listener.losses) == {GapReason.EPOCH}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_stream_with_older_data_is_new_epoch(rabbit: PrivateRabbit) -> None:
    """Without a new epoch, RabbitMQ would reuse offsets, and clients would miss the messages that had them first."""

    async def set_back(load: Load) -> None:
        await asyncio.to_thread(rabbit.save)
        await load.wait_for_acks(300)
        await asyncio.to_thread(rabbit.kill)
        await asyncio.to_thread(rabbit.restore)
        await asyncio.to_thread(rabbit.start)

    load, listener = await under_load(near(rabbit.url), set_back)
    assert GapReason.EPOCH in listener.losses
    assert set(listener.losses) <= {GapReason.EPOCH, GapReason.TRIMMED}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_retention_past_slow_node_is_gap(rabbit: PrivateRabbit) -> None:
    """A node that stands still while RabbitMQ removes messages that it has not read receives a gap."""
    async with near(rabbit.url, segment_bytes="64KiB", max_stream_bytes="128KiB") as (sender, listener):
        reading = listener.broker._node._session.wire._reading  # type: ignore[union-attr]
        reading._transport._streams[1].transport.pause_reading()
        load = Load(sender, name=b"x" * 1_000)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(0))
            await load.wait_for_acks(2_000)
            load.stopping = True
        await wait_for_end(sender, listener)
        assert set(listener.losses) == {GapReason.TRIMMED}
        check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_suspended_node_catches_up_without_gap(rabbit: PrivateRabbit) -> None:
    """A node whose process stands still for longer than `dead_s` loses nothing that the streams still contain."""
    async with near(rabbit.url) as (sender, listener):
        reading = listener.broker._node._session.wire._reading  # type: ignore[union-attr]
        reading._transport._streams[1].transport.pause_reading()
        load = Load(sender)
        async with publishing(load):
            async with asyncio.timeout(HANG_S):
                await listener.until(lambda: "degraded" in listener.states)
            await load.wait_for_acks(200)
        await wait_for_end(sender, listener)
        check(load, listener)
        assert listener.losses == []
