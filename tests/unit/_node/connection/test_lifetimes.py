"""Warnings, expiries and ages of connections, in virtual time."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.virtual_time import virtual

from dws_core import Connection, Limits, Principal
from dws_core._node.connection.host import StandaloneHost
from dws_core._node.connection.lifetimes import Lifetimes
from dws_core._node.pacing import Pacer
from dws_core.testing import FakeWebSocket


class World:
    """A node without a broker, whose system clock can be moved."""

    def __init__(self, **limits: float | None) -> None:
        self.host = StandaloneHost()
        self.jump_s = 0.0
        self.lifetimes = Lifetimes(
            Limits(**limits),
            fanout=self.host.fanout,
            pacer=Pacer(),
            clock=self.clock,  # type: ignore[arg-type]
        )

    def clock(self) -> float:
        return 1_000_000.0 + asyncio.get_running_loop().time() + self.jump_s

    @classmethod
    @asynccontextmanager
    async def open(cls, **limits: float | None) -> AsyncIterator[World]:
        world = cls(**limits)
        world.host.tasks.spawn(world.lifetimes.run(), name="lifetimes")
        try:
            yield world
        finally:
            await world.host.tasks.stop()

    async def connect(self, expires_in_s: float | None) -> Connection:
        connection = Connection(FakeWebSocket(), "ann", host=self.host)
        await connection.accept()
        self.replace(connection, expires_in_s)
        self.lifetimes.begin(connection)
        return connection

    def replace(self, connection: Connection, expires_in_s: float | None) -> None:
        expires_at = None if expires_in_s is None else self.clock() + expires_in_s
        connection.principal = Principal(id="ann", expires_at=expires_at)


def _frames(connection: Connection) -> list[object]:
    assert isinstance(connection.websocket, FakeWebSocket)
    return [json.loads(frame) for frame in connection.websocket.frames]


@virtual
async def test_connection_is_warned_then_closed() -> None:
    async with World.open() as world:
        ann = await world.connect(100)
        await asyncio.sleep(69)
        assert _frames(ann) == []
        await asyncio.sleep(2)
        assert _frames(ann) == [{"type": "expiring", "in_s": 30.0}]
        assert world.lifetimes.left_s(ann) == 29
        await asyncio.sleep(28)
        assert not ann.closed
        await asyncio.sleep(2)
        assert ann.close_code == 4002


@virtual
async def test_short_token_is_warned_at_half_time() -> None:
    """A client whose tokens live for seconds is not warned without end."""
    async with World.open() as world:
        ann = await world.connect(2)
        await asyncio.sleep(0.9)
        assert _frames(ann) == []
        await asyncio.sleep(0.2)
        assert _frames(ann) == [{"type": "expiring", "in_s": 1.0}]
        world.replace(ann, 2)
        world.lifetimes.renew(ann)
        await asyncio.sleep(0.9)
        assert len(_frames(ann)) == 1
        await asyncio.sleep(0.2)
        assert len(_frames(ann)) == 2


@virtual
async def test_renewed_connection_lives_until_new_expiry() -> None:
    async with World.open(expiry_warning_s=None) as world:
        ann, bo = await world.connect(10), await world.connect(10)
        world.replace(ann, 100)
        world.lifetimes.renew(ann)
        world.replace(bo, None)
        world.lifetimes.renew(bo)
        assert world.lifetimes.left_s(bo) is None
        await asyncio.sleep(99)
        assert not ann.closed
        await asyncio.sleep(2)
        assert (ann.close_code, bo.close_code, _frames(ann)) == (4002, None, [])


@virtual
async def test_earlier_expiry_is_noticed() -> None:
    async with World.open() as world:
        late, early = await world.connect(1000), await world.connect(10)
        await asyncio.sleep(11)
        assert (late.close_code, early.close_code) == (None, 4002)
        world.replace(late, 5)
        world.lifetimes.renew(late)
        await asyncio.sleep(6)
        assert late.close_code == 4002


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
@virtual
async def test_clock_jump_moves_no_expiry(jump_s: float) -> None:
    async with World.open() as world:
        ann = await world.connect(100)
        world.jump_s = jump_s
        await asyncio.sleep(99)
        assert not ann.closed
        await asyncio.sleep(2)
        assert ann.close_code == 4002


@virtual
async def test_closed_connection_leaves_nothing() -> None:
    async with World.open(connection_age_s=1000.0) as world:
        ann = await world.connect(100)
        await ann.close()
        world.lifetimes.forget(ann)
        lifetimes = world.lifetimes
        assert (len(lifetimes._next), len(lifetimes._expiries), len(lifetimes._ages)) == (0, 0, 0)
        await asyncio.sleep(2000)
        assert ann.close_code == 1000


@pytest.mark.parametrize("expires_in_s", [None, math.inf])
@virtual
async def test_connection_without_end_needs_no_memory(expires_in_s: float | None) -> None:
    async with World.open() as world:
        ann = await world.connect(expires_in_s)
        lifetimes = world.lifetimes
        assert (len(lifetimes._next), len(lifetimes._expiries), len(lifetimes._ages)) == (0, 0, 0)
        await asyncio.sleep(3000)
        assert not ann.closed


@virtual
async def test_ages_are_spread_over_last_tenth() -> None:
    async with World.open(connection_age_s=1000.0) as world:
        connections = [await world.connect(None) for _ in range(200)]
        await asyncio.sleep(899)
        assert not any(connection.closed for connection in connections)
        closed = []
        for _ in range(5):
            await asyncio.sleep(20.4)
            closed.append(sum(connection.closed for connection in connections))
        assert closed[-1] == 200
        assert all(10 < later - before < 80 for before, later in zip([0, *closed], closed, strict=False))
        assert {connection.close_code for connection in connections} == {4001}


@virtual
async def test_age_and_expiry_end_at_the_earlier() -> None:
    async with World.open(connection_age_s=50.0) as world:
        old, expired = await world.connect(1000), await world.connect(20)
        await asyncio.sleep(51)
        assert (old.close_code, expired.close_code) == (4001, 4002)


@virtual
async def test_many_ends_in_one_second_take_turns() -> None:
    """Between two of them the event loop continues."""
    async with World.open(expiry_warning_s=None) as world:
        connections = [await world.connect(10) for _ in range(400)]
        await asyncio.sleep(9.999)
        most, before = 0, 0
        while before < 400:
            await asyncio.sleep(0)
            world_closed = sum(connection.closed for connection in connections)
            most, before = max(most, world_closed - before), world_closed
            if not before:
                await asyncio.sleep(0.001)
        assert most <= 8


@virtual
async def test_expiry_far_in_the_future_is_allowed() -> None:
    async with World.open() as world:
        ann = await world.connect(1e15)
        await asyncio.sleep(3000)
        assert not ann.closed


@virtual
async def test_failing_warning_delays_no_expiry(caplog: pytest.LogCaptureFixture) -> None:
    """A plugin's codec cannot encode the warning."""

    def fail(*_: object) -> bool:
        raise ValueError("a bug of a codec")

    async with World.open() as world:
        world.lifetimes._fanout.send = fail  # type: ignore[method-assign]
        ann, bo = await world.connect(100), await world.connect(110)
        await asyncio.sleep(111)
        assert (ann.close_code, bo.close_code) == (4002, 4002)
    assert caplog.text.count("could not be warned") == 2
