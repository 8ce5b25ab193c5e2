"""Broker suite, logs only: faults that a plugin's tests cause in its broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from dws_core.plugin import (
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    GapReason,
    LogBroker,
    PublishOutcomeUnknown,
    ReadResult,
    Receipt,
    partition_of,
)
from dws_core.testing.faults.broker_faults import BrokerFaults
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_TEMPORARY = (BrokerUnavailable, BrokerOverloaded, PublishOutcomeUnknown)


_CUTS = [(("cut_tail",), 20), (("cut_commands",), 20), (("cut_tail", "cut_commands"), 20), (("restart",), 3)]
"""Concurrent faults, and their number of rounds."""


class BrokerFaultTests(BrokerBase):
    """Faults lose and repeat nothing. A test is collected if the fixture `fault` implements its faults."""

    @pytest.mark.parametrize(
        ("names", "rounds"),
        [
            pytest.param(names, rounds, id=f"{'+'.join(names)}-{rounds}", marks=needs("log", "recovery", faults=names))
            for names, rounds in _CUTS
        ],
    )
    async def test_broken_connections_lose_and_repeat_nothing(
        self, open_peer: OpenPeer, fault: BrokerFaults, names: tuple[str, ...], rounds: int
    ) -> None:
        """The connections break while one node publishes and two nodes receive."""
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()

        async def publish(first: int) -> None:
            for number in range(first, first + 10):
                await _insist(a, b"%d" % number)
                await asyncio.sleep(0)  # some brokers resolve immediately, but the fault must happen during publishes

        for number in range(rounds):
            await asyncio.gather(*(getattr(fault, name)() for name in names), publish(number * 10))
        await _insist(a, b"end")
        for node in (a, b):
            assert await node.receive_until(b"end") == [b"%d" % number for number in range(rounds * 10)]

    @needs("log", "recovery", faults=("wipe",))
    async def test_wiped_log_starts_new_epoch_on_every_node(self, open_peer: OpenPeer, fault: BrokerFaults) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        old = await a.send("t", b"old")
        for node in (a, b):
            await node.receive(1)
        await fault.wipe()
        new = await _insist(a, b"new")
        assert new.epoch != old.epoch
        partition = partition_of("t", a.layout)
        for node in (a, b):
            for number in range(a.layout.partitions):
                await node.until(_lost(node, number), "a discontinuity")
            assert node.sink.take_losses() == {GapReason.EPOCH}
            result = await node.read_after(["t"], old.offset or 0, epoch=old.epoch, partition=partition)
            assert result == ReadResult(gap=GapReason.EPOCH)
            assert (await node.head("t")).epoch == new.epoch
        await _insist(a, b"newer")
        for node in (a, b):
            assert (await node.receive_until(b"newer"))[-1:] in ([b"new"], []), (
                "records before the new baseline are not delivered"
            )

    @needs("log", "recovery", faults=("freeze", "thaw"))
    async def test_frozen_broker_is_noticed_and_loses_nothing(self, open_peer: OpenPeer, fault: BrokerFaults) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        await a.publish(b"before")
        await fault.freeze()
        try:
            sent = await _publish_until_failure(a)
            for node in (a, b):
                await node.until(_troubled(node), "the state 'degraded' or 'blocked'")
        finally:
            await fault.thaw()
        await _insist(a, sent[-1])
        await _insist(a, b"end")
        for node in (a, b):
            await node.until(_live(node), "the state 'live'")
            assert await node.receive_until(b"end") == [b"before", *sent]

    @needs("log", faults=("take_down", "bring_up"))
    async def test_unreachable_broker_fails_fast_and_recovers(
        self,
        open_peer: OpenPeer,
        make_peer: Callable[..., LogPeer],
        fault: BrokerFaults,
        broker_class: type[LogBroker],
    ) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        await fault.take_down()
        try:
            await _publish_until_failure(a)
            for ask in (a.broker.heads([0]), a.broker.send_control(b"x"), make_peer().start()):
                with pytest.raises(BrokerUnavailable):
                    await a.within(ask)
            for node in (a, b):
                await node.until(_troubled(node), "the state 'degraded' or 'blocked'")
        finally:
            await fault.bring_up()
        for node in (a, b):
            await node.until(_live(node), "the state 'live'")
        await _insist(a, b"again")
        for node in (a, b):
            await node.until(_heard(node, b"again"), "a message after the fault")
            if broker_class.capabilities.durable == "none":
                node.sink.take_losses()


def _troubled(node: LogPeer) -> Callable[[], bool]:
    return lambda: bool({"degraded", "blocked"} & set(node.sink.states))


def _live(node: LogPeer) -> Callable[[], bool]:
    return lambda: node.sink.states[-1] == "live"


def _lost(node: LogPeer, partition: int) -> Callable[[], bool]:
    return lambda: partition in {lost[0] for lost in node.sink.discontinuities}


def _heard(node: LogPeer, payload: bytes) -> Callable[[], bool]:
    return lambda: payload in node.received


async def _publish_until_failure(node: LogPeer) -> list[bytes]:
    """Publish until a publish fails, because a fault may take effect a moment after its method has returned.

    Returns:
        The published payloads, which are also the keys. Only the last publish failed.
    """
    sent: list[bytes] = []

    async def fails() -> bool:
        sent.append(b"%d" % len(sent))
        try:
            await node.within(node.submit("t", sent[-1], key=sent[-1].decode(), deadline_s=0.1))
        except (PublishOutcomeUnknown, BrokerUnavailable):
            return True
        return False

    await node.poll_until(fails, "a publish to fail")
    return sent


async def _insist(node: LogPeer, payload: bytes) -> Receipt:
    """Publish repeatedly with the same key until the message is stored."""
    receipts: list[Receipt] = []

    async def stored() -> bool:
        with contextlib.suppress(*_TEMPORARY):
            receipts.append(await node.submit("t", payload, key=payload.decode(), deadline_s=1.0))
        return bool(receipts)

    try:
        await node.poll_until(stored, f"the receipt of {payload!r}")
    except BrokerError as error:
        raise AssertionError(f"a temporary fault must not raise {type(error).__name__}: {error}") from error
    return receipts[0]
