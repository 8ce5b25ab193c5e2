"""Faults of a Redis under load: every acknowledged message arrives once and in order, or a gap is reported."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from dws_redis._connection import Wire
from dws_redis._shard import Shard
from services.redis import PrivateRedis
from support.broker_load import HISTORY, Load, check, check_after_last_gap, wait_for_end
from support.fault_scenarios import (
    Trouble,
    freeze,
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

near_redis = partial(near, dead_s="800ms", trust_restart="always")
"""`near` with options for a Redis that is restarted."""


@pytest.fixture
def with_aof() -> Iterator[PrivateRedis]:
    server = PrivateRedis(aof=True)
    server.start()
    yield server
    server.remove()


def _end_tails(redis: PrivateRedis) -> None:
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")


def _end_commands(redis: PrivateRedis) -> None:
    redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _end_all(redis: PrivateRedis) -> None:
    _end_commands(redis)
    _end_tails(redis)


async def kill_tails(redis: PrivateRedis, load: Load) -> None:
    await repeat(partial(_end_tails, redis), load)


async def kill_commands(redis: PrivateRedis, load: Load) -> None:
    await repeat(partial(_end_commands, redis), load)


async def kill_all(redis: PrivateRedis, load: Load) -> None:
    await repeat(partial(_end_all, redis), load)


KILLS: list[Trouble[PrivateRedis]] = [kill_tails, kill_commands, kill_all, kill_9_twice]


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [*KILLS, freeze])
async def test_fault_under_load_loses_and_repeats_nothing(
    with_aof: PrivateRedis, trouble: Trouble[PrivateRedis]
) -> None:
    await loses_and_repeats_nothing(near_redis(with_aof.url), with_aof, trouble)


@pytest.mark.anyio
async def test_silent_command_connection_is_replaced(
    with_aof: PrivateRedis,
) -> None:
    """Simulate a firewall that drops one of two connections: messages still arrive, but no publish is answered."""
    async with near_redis(with_aof.url) as (sender, listener):
        load, others = Load(sender), Load(listener, name=b"other")
        async with publishing(load, others):  # so that the log always has traffic
            await load.wait_for_acks(200)
            silent = sender.broker._node._shard_of(0).commands  # type: ignore[union-attr]
            silent._wire._transport.pause_reading()  # type: ignore[union-attr, attr-defined]
            async with asyncio.timeout(HANG_S):
                await silent.lost.wait()  # type: ignore[union-attr]
            await load.wait_for_acks(200)
        await wait_for_end(sender, listener)
        check(load, listener)
        check(others, listener)
        assert (load.unknown, load.refused, listener.losses) == (set(), 0, [])


@pytest.mark.anyio
async def test_redis_without_its_data_has_new_epoch(server: PrivateRedis) -> None:
    load, listener = await under_load(near_redis(server.url), partial(kill_9_twice, server))
    assert set(listener.losses) == {GapReason.EPOCH}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_redis_with_older_data_is_gap(server: PrivateRedis) -> None:
    """Without a new epoch, Redis would reuse offsets, and clients would miss the messages that had them first."""

    async def set_back(load: Load) -> None:
        assert b"OK" in server.command("SAVE")
        shutil.copy(server.folder / "dump.rdb", server.folder / "older.rdb")
        await load.wait_for_acks(300)
        server.kill()
        shutil.copy(server.folder / "older.rdb", server.folder / "dump.rdb")
        server.start()

    load, listener = await under_load(near_redis(server.url), set_back)
    assert listener.losses, "it is said"
    assert set(listener.losses) <= {GapReason.EPOCH, GapReason.AHEAD}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_slow_reading_node_reconnects_and_catches_up() -> None:
    """Redis closes the connection of a node that reads too slowly."""
    redis = PrivateRedis(**{"client-output-buffer-limit": "pubsub 256kb 0 0"})
    redis.start()
    try:
        async with near_redis(redis.url) as (sender, listener):
            wire = listener.broker._node._shard_of(0).tail._subscription._wire  # type: ignore[union-attr]
            wire._transport.pause_reading()  # type: ignore[union-attr, attr-defined]
            payloads = [b"%d " % number + b"x" * 20_000 for number in range(600)]
            futures = [sender.broker.publish(0, "t", payload, history=HISTORY) for payload in payloads]
            await asyncio.gather(*futures)
            await listener.until(lambda: len(listener.received[0]) == len(payloads))
            assert [payload for _, payload in listener.received[0]] == payloads
            assert listener.losses == []
            assert "degraded" in listener.states
    finally:
        redis.remove()


# -- random sequences of faults


async def silence_commands(redis: PrivateRedis, load: Load) -> None:
    await silence(load, lambda shard: shard.commands and shard.commands._wire)


async def silence_tail(redis: PrivateRedis, load: Load) -> None:
    await silence(load, lambda shard: shard.tail._subscription and shard.tail._subscription._wire)


async def silence(load: Load, choose: Callable[[Shard], Wire | None]) -> None:
    """Stop reading on a connection until the node closes it."""
    shard = load.node.broker._node._shard_of(0)  # type: ignore[union-attr]
    if shard is not None and (wire := choose(shard)) is not None:
        wire._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(HANG_S):
            await wire.lost.wait()


async def forget_scripts(redis: PrivateRedis, load: Load) -> None:
    redis.command("SCRIPT", "FLUSH")


@pytest.mark.anyio
async def test_random_faults_lose_and_repeat_nothing(with_aof: PrivateRedis) -> None:
    troubles = [*KILLS, freeze, silence_commands, silence_tail, forget_scripts]
    await random_faults_lose_and_repeat_nothing(near_redis(with_aof.url), with_aof, troubles, seed=new_seed(), count=8)
