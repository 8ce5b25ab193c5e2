"""Brokers on `StreamLogBroker` pass the broker suite, faults included: with offsets and bounds, and without, and with a lane."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest
from support.streams import LaneStreamBroker, MemoryServer, MemoryStreamBroker, QuietStreamBroker
from support.timeouts import HANG_S

from dws_core.plugin import BrokerSpec, BrokerURL
from dws_core.testing import BrokerConformance, BrokerFaults
from dws_core.testing.suites.peers import LogPeer


def _load() -> type[MemoryStreamBroker]:
    return MemoryStreamBroker


def _load_quiet() -> type[QuietStreamBroker]:
    return QuietStreamBroker


def _load_lane() -> type[LaneStreamBroker]:
    return LaneStreamBroker


for _function in (_load, _load_quiet, _load_lane):
    _function.__module__ = "not_a_package"  # the suite imports the package of a plugin in a new process


class Faults(BrokerFaults):
    """What can happen to a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server

    async def cut_tail(self) -> None:
        self.server.cut()

    async def cut_commands(self) -> None:
        self.server.cut()

    async def restart(self) -> None:
        self.server.cut()

    async def wipe(self) -> None:
        self.server.wipe()

    async def take_down(self) -> None:
        self.server.up = False
        self.server.cut()

    async def bring_up(self) -> None:
        self.server.up = True

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()

    async def snapshot(self) -> None:
        self.server.snapshot()

    async def set_back(self) -> None:
        self.server.set_back()


class TestMemoryStreamBroker(BrokerConformance):
    @pytest.fixture
    def broker_url(self) -> Iterator[str]:
        name = secrets.token_hex(4)
        yield f"memstream://{name}"
        MemoryStreamBroker.servers.pop(name, None)

    @pytest.fixture
    def fault(self, broker_url: str) -> BrokerFaults:
        return Faults(MemoryStreamBroker.servers.setdefault(broker_url.partition("//")[2], MemoryServer()))

    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        return BrokerSpec(
            schemes=("memstream",), load=_load, capabilities=MemoryStreamBroker.capabilities, summary="In memory."
        )


class TestQuietStreamBroker(TestMemoryStreamBroker):
    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        return BrokerSpec(
            schemes=("memstream",), load=_load_quiet, capabilities=QuietStreamBroker.capabilities, summary="In memory."
        )


class TestLaneStreamBroker(TestMemoryStreamBroker):
    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        return BrokerSpec(
            schemes=("memstream",), load=_load_lane, capabilities=LaneStreamBroker.capabilities, summary="In memory."
        )


@pytest.mark.anyio
async def test_publish_while_session_ends_is_stored() -> None:
    """In each tick while a lost connection ends its tasks, a publish is accepted and stored later."""
    broker = MemoryStreamBroker.from_url(BrokerURL.parse(f"memstream://{secrets.token_hex(4)}"))
    node = LogPeer(broker, "c", HANG_S)
    await node.open()
    for ticks in range(4):
        await node.within(asyncio.gather(*(node.submit("t", b"before") for _ in range(10))))
        broker.server.freeze()
        futures = [node.submit("t", bytes(100_000)) for _ in range(10)]  # several envelopes in flight
        for _ in range(4):
            await asyncio.sleep(0)
        broker.server.thaw()  # their replies are lost
        for _ in range(ticks):
            await asyncio.sleep(0)
        broker.server.cut()
        for _ in range(15):
            futures.append(node.submit("t", b"meanwhile"))
            await asyncio.sleep(0)
        await node.within(asyncio.gather(*futures))
    await node.close()
    MemoryStreamBroker.servers.pop(broker.url.name)
