"""Faults of a RabbitMQ under load: every acknowledged message arrives once and in order, or a gap is reported."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from integration.test_roaming import new_seed
from services.rabbitmq import PrivateRabbit
from support.broker_load import Load, Node, check, check_after_last_gap, two_nodes, wait_for_end
from support.timeouts import HANG_S

from dws_core.plugin import GapReason, Layout

Trouble = Callable[[PrivateRabbit, Load], Awaitable[None]]


def near(rabbit: PrivateRabbit, **options: str) -> AbstractAsyncContextManager[tuple[Node, Node]]:
    """Start two nodes on a new channel that notice faults quickly."""
    layout = Layout(channel=f"faults-{secrets.token_hex(4)}", partitions=2)
    query = "&".join(f"{name}={value}" for name, value in {"probe_s": "200ms", "dead_s": "2s", **options}.items())
    return two_nodes(f"{rabbit.url}?{query}", layout)


async def under_load(
    rabbit: PrivateRabbit, trouble: Callable[[Load], Awaitable[None]], **options: str
) -> tuple[Load, Node]:
    """Publish on one node and listen on the other during a fault. Return when all messages have arrived."""
    async with near(rabbit, **options) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            await trouble(load)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        return load, listener


async def close_reading(rabbit: PrivateRabbit, load: Load) -> None:
    await _close(rabbit, load, "reading")


async def close_publishing(rabbit: PrivateRabbit, load: Load) -> None:
    await _close(rabbit, load, "publishing")


async def close_all(rabbit: PrivateRabbit, load: Load) -> None:
    await _close(rabbit, load, "")


async def _close(rabbit: PrivateRabbit, load: Load, name: str) -> None:
    for _ in range(5):
        assert await asyncio.to_thread(rabbit.close_connections, name) > 0
        await load.wait_for_acks(100)


async def kill_9(rabbit: PrivateRabbit, load: Load) -> None:
    await asyncio.to_thread(rabbit.kill)
    await asyncio.to_thread(rabbit.start)
    await load.wait_for_acks(100)


async def kill_9_twice(rabbit: PrivateRabbit, load: Load) -> None:
    for _ in range(2):
        await kill_9(rabbit, load)


async def kill_writers(rabbit: PrivateRabbit, load: Load) -> None:
    """Kill the processes inside RabbitMQ that write the streams. The connections stay open."""
    for _ in range(3):
        await asyncio.to_thread(rabbit.kill_stream_writers)
        await load.wait_for_acks(100)


async def freeze(rabbit: PrivateRabbit, load: Load) -> None:
    await asyncio.to_thread(rabbit.freeze)
    try:
        await load.node.until(lambda: load.node.states[-1] == "degraded")
    finally:
        await asyncio.to_thread(rabbit.thaw)


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


TROUBLES: list[Trouble] = [
    close_reading,
    close_publishing,
    close_all,
    kill_9_twice,
    kill_writers,
    freeze,
    memory_alarm,
    disk_alarm,
]


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_fault_under_load_loses_and_repeats_nothing(rabbit: PrivateRabbit, trouble: Trouble) -> None:
    load, listener = await under_load(rabbit, lambda load: trouble(rabbit, load))
    check(load, listener)
    assert listener.losses == []
    assert (load.unknown, load.refused) == (set(), 0), "every publish was repeated until it was answered"


@pytest.mark.anyio
async def test_random_faults_lose_and_repeat_nothing(rabbit: PrivateRabbit) -> None:
    chance = random.Random(new_seed())
    async with near(rabbit) as (one, other):
        loads = Load(one, name=b"one"), Load(other, name=b"other")
        async with asyncio.TaskGroup() as group:
            for load in loads:
                for partition in (0, 1):
                    group.create_task(load.run(partition))
            for trouble in chance.choices([*TROUBLES[:3], kill_9, *TROUBLES[4:]], k=6):
                sys.stdout.write(f"{trouble.__name__}\n")
                await trouble(rabbit, chance.choice(loads))
                for _ in range(chance.randrange(3)):  # if 0, the next fault follows at once
                    await loads[0].wait_for_acks(20)
            for load in loads:
                await load.wait_for_acks(100)
                load.stopping = True
        await wait_for_end(one, other)
        await wait_for_end(other, one)
        for load in loads:
            assert (load.unknown, load.refused) == (set(), 0)
            for node in (one, other):
                check(load, node)
        assert one.losses == other.losses == []


@pytest.mark.anyio
async def test_recreated_stream_is_new_epoch(rabbit: PrivateRabbit) -> None:
    async def delete(load: Load) -> None:
        for name in rabbit.queues():
            if ".log." in name:
                await asyncio.to_thread(rabbit.delete_queue, name)
        await load.wait_for_acks(200)

    load, listener = await under_load(rabbit, delete)
    assert set(listener.losses) == {GapReason.EPOCH}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_stream_with_older_data_is_new_epoch(rabbit: PrivateRabbit) -> None:
    """Without a new epoch, RabbitMQ would reuse offsets, and clients would miss the messages that had them first."""

    async def set_back(load: Load) -> None:
        await asyncio.to_thread(rabbit.kill)
        rabbit.save()
        await asyncio.to_thread(rabbit.start)
        await load.wait_for_acks(300)
        await asyncio.to_thread(rabbit.kill)
        rabbit.restore()
        await asyncio.to_thread(rabbit.start)

    load, listener = await under_load(rabbit, set_back)
    assert GapReason.EPOCH in listener.losses
    assert set(listener.losses) <= {GapReason.EPOCH, GapReason.TRIMMED}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_retention_past_slow_node_is_gap(rabbit: PrivateRabbit) -> None:
    """A node that stands still while RabbitMQ removes messages that it has not read receives a gap."""
    async with near(rabbit, segment_bytes="64KiB", max_stream_bytes="128KiB") as (sender, listener):
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
    async with near(rabbit) as (sender, listener):
        reading = listener.broker._node._session.wire._reading  # type: ignore[union-attr]
        reading._transport._streams[1].transport.pause_reading()
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            async with asyncio.timeout(HANG_S):
                await listener.until(lambda: "degraded" in listener.states)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        check(load, listener)
        assert listener.losses == []
