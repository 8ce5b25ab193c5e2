"""`FaultyBroker`: each fault starts and ends with its block, and affects nothing else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dws_memory import MemoryBroker
from support.brokers import PlainBroker

from dws_core.plugin import (
    BrokerClosed,
    BrokerOverloaded,
    BrokerSpec,
    BrokerUnavailable,
    BrokerURL,
    ConfigurationError,
    GapReason,
    History,
    PublishOutcomeUnknown,
    ReadSpan,
)
from dws_core.testing import BrokerConformance, FaultyBroker
from dws_core.testing.suites.peers import LogPeer


class FaultyMemory(FaultyBroker):
    capabilities = MemoryBroker.capabilities


class TestWithoutFaults(BrokerConformance):
    """Without a fault it behaves like the broker that it wraps."""

    fault = sever = count_operations = unreachable_url = None  # all nodes are in one process

    @pytest.fixture
    def broker_url(self) -> str:
        return "memory://behind-a-faulty-one"

    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        def load() -> type[FaultyMemory]:
            return FaultyMemory

        load.__module__ = "not_installed"
        return BrokerSpec(schemes=("memory",), load=load, capabilities=FaultyMemory.capabilities, summary="For a test.")


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[LogPeer, LogPeer]]:
    """One node on a faulty broker and one on a sound broker, with the same log."""
    name = f"faults-{secrets.token_hex(4)}"
    faulty = LogPeer(FaultyBroker(f"memory://{name}"), "chat", 10)
    sound = LogPeer(MemoryBroker(name), "chat", 10)
    for node in (faulty, sound):
        await node.open()
    yield faulty, sound
    for node in (faulty, sound):
        await node.close()


def faults_of(node: LogPeer) -> FaultyBroker:
    assert isinstance(node.broker, FaultyBroker)
    return node.broker


def test_only_log_brokers_can_be_wrapped() -> None:
    with pytest.raises(ConfigurationError, match="needs a LogBroker, not PlainBroker"):
        FaultyBroker(PlainBroker())  # type: ignore[arg-type]
    broker = FaultyBroker(MemoryBroker("x", max_payload_bytes=7))
    assert broker.capabilities.max_payload_bytes == 7
    assert "memory://x" in repr(broker)
    assert isinstance(FaultyBroker.from_url(BrokerURL.parse("memory://x")).broker, MemoryBroker)


@pytest.mark.parametrize(("overloaded", "error"), [(False, BrokerUnavailable), (True, BrokerOverloaded)])
async def test_refused_publish_is_not_stored(
    nodes: tuple[LogPeer, LogPeer], overloaded: bool, error: type[Exception]
) -> None:
    """Messages of other nodes still arrive."""
    faulty, sound = nodes
    with faults_of(faulty).refusing(overloaded=overloaded):
        with pytest.raises(error, match="leave the `with` block"):
            await faulty.send("t", b"refused")
        await sound.send("t", b"from elsewhere")
    await faulty.send("t", b"end")
    for node in nodes:
        assert await node.receive_until(b"end") == [b"from elsewhere"]


@pytest.mark.parametrize("stored", [True, False])
async def test_lost_answer_is_unknown_outcome(nodes: tuple[LogPeer, LogPeer], stored: bool) -> None:
    faulty, sound = nodes
    with faults_of(faulty).losing_answers(stored=stored):
        with pytest.raises(PublishOutcomeUnknown):
            await faulty.send("t", b"perhaps", key="k")
    assert (await faulty.send("t", b"perhaps", key="k")).duplicate is stored
    await faulty.send("t", b"end")
    assert await sound.receive_until(b"end") == [b"perhaps"]


async def test_lost_answer_hides_failure_too(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, _ = nodes
    with faults_of(faulty).losing_answers(stored=True):
        with pytest.raises(PublishOutcomeUnknown):
            await faulty.send("t", b"x" * 2_000_000)


async def test_delayed_publishes_keep_order_after_delay(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    with faults_of(faulty).delaying(0.5):
        late = [faulty.submit("t", b"%d" % number) for number in range(5)]
        await sound.send("t", b"meanwhile")
    late.append(faulty.submit("t", b"5"))
    assert not any(future.done() for future in late)
    await asyncio.gather(*late)
    await faulty.send("t", b"end")
    assert await sound.receive_until(b"end") == [b"meanwhile", *(b"%d" % number for number in range(6))]


async def test_delay_beyond_deadline_is_unknown_outcome(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    with faults_of(faulty).delaying(0.02):
        with pytest.raises(PublishOutcomeUnknown):
            await faulty.submit("t", b"late", deadline_s=0.001)
    assert await sound.receive(1) == [b"late"]


async def test_cut_tail_reports_gap_and_continues_after_it(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    await sound.send("t", b"before")
    await faulty.receive(1)
    async with faults_of(faulty).tail_cut(GapReason.TRIMMED):
        await faulty.send("t", b"stored, not heard")
        missed = await sound.send("t", b"missed")
        await sound.broker.send_control(b"missed as well")
        await sound.receive(3)
        assert faulty.sink.states[-1] == "degraded"
    ((partition, reason, head),) = faulty.sink.discontinuities
    assert (partition, reason, head.offset, head.epoch) == (0, GapReason.TRIMMED, missed.offset, missed.epoch)
    assert faulty.sink.states[-1] == "live"
    assert faulty.sink.take_losses() == {GapReason.TRIMMED}
    await sound.send("t", b"after")
    assert await faulty.receive(1) == [b"after"]
    assert faulty.sink.controls == []


async def test_nested_cuts_report_one_gap(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, _ = nodes
    async with faults_of(faulty).tail_cut(), faults_of(faulty).unreachable(GapReason.EPOCH):
        pass
    assert faulty.sink.take_losses() == {GapReason.TRIMMED}
    assert faulty.sink.states == ["live", "degraded", "degraded", "live"]


async def test_state_of_wrapped_broker_does_not_hide_cut(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, _ = nodes
    async with faults_of(faulty).tail_cut():
        faults_of(faulty)._tail.on_state("live", "says the broker behind")
        assert faulty.sink.states == ["live", "degraded"]
    assert faulty.sink.states == ["live", "degraded", "live"]
    faulty.sink.take_losses()


async def test_unreachable_broker_rejects_all_and_recovers(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    broker = faults_of(faulty)
    async with broker.unreachable():
        asked = [
            broker.publish(0, "t", b"x", history=History()),
            broker.heads([0]),
            broker.read(ReadSpan(partition=0, since=0, until=1, epoch="", topics=["t"], limit=1, max_bytes=1)),
            broker.set_interest(frozenset({0})),
            broker.send_control(b"x"),
            FaultyBroker.start(broker, node=b"n" * 8, layout=faulty.layout, sink=faulty.sink),
        ]
        for ask in asked:
            with pytest.raises(BrokerUnavailable):
                await ask
        await sound.send("t", b"stored in the meantime")
    await faulty.send("t", b"again")
    for node in nodes:
        assert await node.receive_until(b"again") == [b"stored in the meantime"]
    assert faulty.sink.states == ["live", "degraded", "live"]


async def test_outage_of_trimmed_log_is_gap(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    async with faults_of(faulty).unreachable():
        for _ in range(2):
            await sound.send("t", b"only one is kept", history=History(size=1))
        await sound.receive(2)
    assert faulty.sink.take_losses() == {GapReason.TRIMMED}
    await sound.send("t", b"after")
    assert await faulty.receive(1) == [b"after"]


async def test_held_records_precede_those_of_an_outage(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    with faults_of(faulty).frozen():
        await sound.send("t", b"held")
        await sound.receive(1)
        async with faults_of(faulty).unreachable():
            await sound.send("t", b"missed")
            await sound.receive(1)
    await sound.send("t", b"end")
    assert await faulty.receive_until(b"end") == [b"held", b"missed"]
    assert faulty.violations == []


async def test_frozen_broker_waits_and_continues(nodes: tuple[LogPeer, LogPeer]) -> None:
    faulty, sound = nodes
    with faults_of(faulty).frozen():
        waiting = [faulty.submit("t", b"%d" % number) for number in range(3)]
        late = faulty.submit("t", b"late", deadline_s=0.001)
        head = asyncio.get_running_loop().create_task(faulty.head("t"))
        with pytest.raises(PublishOutcomeUnknown):
            await late
        await sound.send("t", b"first")
        await sound.receive(1)
        assert not head.done()
        assert not any(future.done() for future in waiting)
        assert faulty.received == []
        assert faulty.sink.states[-1] == "degraded"
    await asyncio.gather(*waiting)
    assert (await head).epoch
    await sound.send("t", b"end")
    for node in nodes:
        heard = await node.receive_until(b"end")
        assert heard[-4:] == [b"0", b"1", b"2", b"late"]
    assert faulty.violations == []
    assert faulty.sink.states[-1] == "live"


async def test_stop_during_fault_ends_all_waits() -> None:
    """The sink receives no event after the stop."""
    node = LogPeer(FaultyBroker("memory://stopped"), "chat", 10)
    await node.open()
    with faults_of(node).frozen():
        waiting: Any = node.submit("t", b"x")
        await node.close()
        with pytest.raises(BrokerClosed):
            await waiting
        assert node.sink.states[-1] == "closed"
    async with faults_of(node).tail_cut():
        pass
    assert node.sink.states[-1] == "closed"
    assert node.violations == []


async def test_partitions_chosen_during_cut_start_after_it() -> None:
    node = LogPeer(FaultyBroker("memory://chosen"), "chat", 10, partitions=2)
    sound = LogPeer(MemoryBroker("chosen"), "chat", 10, partitions=2)
    await node.start()
    await sound.open()
    async with faults_of(node).tail_cut():
        await node.tail(0)
        await node.tail(1)
        await sound.broker.publish(1, "t", b"missed", history=History())
        await sound.receive(1)
    assert [(lost[0], lost[2].offset) for lost in node.sink.discontinuities] == [(1, 1)]
    node.sink.take_losses()
    await sound.broker.publish(1, "t", b"heard", history=History())
    assert await node.receive(1) == [b"heard"]
    await node.close()
    await sound.close()
