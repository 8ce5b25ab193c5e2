"""Broker suite, logs only: faults that a plugin's tests cause in its broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dws_core.plugin import (
    BrokerUnavailable,
    GapReason,
    LogBroker,
    PublishOutcomeUnknown,
    ReadResult,
    partition_of,
)
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_CUTS = [(("cut_tail",), 10), (("cut_commands",), 10), (("cut_tail", "cut_commands"), 10), (("restart",), 3)]
"""Faults in a row, and their number of rounds."""


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
        self, open_peer: OpenPeer, cause: Cause, names: tuple[str, ...], rounds: int
    ) -> None:
        """The connections break while one node publishes and two nodes receive."""
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()

        async def publish(first: int) -> None:
            for number in range(first, first + 10):
                await a.insist("t", b"%d" % number)
                await asyncio.sleep(0)  # some brokers resolve immediately, but the fault must happen during publishes

        for number in range(rounds):
            await asyncio.gather(cause(*names), publish(number * 10))
        await a.insist("t", b"end")
        for node in (a, b):
            assert await node.receive_until(b"end") == [b"%d" % number for number in range(rounds * 10)]

    @needs("log", "recovery", faults=("wipe",))
    async def test_wiped_log_starts_new_epoch_on_every_node(self, open_peer: OpenPeer, cause: Cause) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        old = await a.send("t", b"old")
        for node in (a, b):
            await node.receive(1)
        await cause("wipe")
        new = await a.insist("t", b"new")
        assert new.epoch != old.epoch
        partition = partition_of("t", a.layout)
        for node in (a, b):
            for number in range(a.layout.partitions):
                await node.until(_lost(node, number), "a discontinuity")
            assert node.sink.take_losses() == {GapReason.EPOCH}
            result = await node.read_after(["t"], old.offset or 0, epoch=old.epoch, partition=partition)
            assert result == ReadResult(gap=GapReason.EPOCH)
            assert (await node.head("t")).epoch == new.epoch
        await a.insist("t", b"newer")
        for node in (a, b):
            assert (await node.receive_until(b"newer"))[-1:] in ([b"new"], []), (
                "records before the new baseline are not delivered"
            )

    @needs("log", "recovery", faults=("snapshot", "set_back"))
    async def test_log_that_was_set_back_starts_new_epoch(self, open_peer: OpenPeer, cause: Cause) -> None:
        """An old position must not stand for the messages that are stored after the log was set back."""
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        kept = await a.send("t", b"kept")
        await cause("snapshot")
        lost = [await a.send("t", b"lost %d" % number) for number in range(5)]
        for node in (a, b):
            await node.receive(6)
        await cause("set_back")
        again = [await a.insist("t", b"again %d" % number) for number in range(10)]
        partition = partition_of("t", a.layout)
        assert kept.epoch not in {receipt.epoch for receipt in again}, (
            "a log that was set back stores new messages in the same epoch, so clients would miss the first of them. Fix: "
            "compare the end of the log with the last seen position after each new connection, and start a new epoch"
        )
        for node in (a, b):
            await node.until(
                _lost(node, partition), "a discontinuity, because messages were lost when the log was set back"
            )
            for place in (kept, lost[-1]):
                result = await node.read_after(["t"], place.offset or 0, epoch=kept.epoch, partition=partition)
                assert result == ReadResult(gap=GapReason.EPOCH)
        await a.insist("t", b"end")
        for node in (a, b):
            await node.until(_heard(node, b"end"), "a message after the log was set back")
            reasons = node.sink.take_losses()
            assert reasons & {GapReason.EPOCH, GapReason.AHEAD}, f"the discontinuities name {reasons}, not 'epoch'"
            received = await node.receive_until(b"end")
            assert received == [b"again %d" % n for n in range(10 - len(received), 10)]

    @needs("log", "recovery", faults=("freeze", "thaw"))
    async def test_frozen_broker_is_noticed_and_loses_nothing(self, open_peer: OpenPeer, cause: Cause) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        await a.publish(b"before")
        await cause("freeze")
        try:
            sent = await _publish_until_failure(a)
            for node in (a, b):
                await node.until(_troubled(node), "the state 'degraded' or 'blocked'")
        finally:
            await cause("thaw")
        await a.insist("t", sent[-1])
        await a.insist("t", b"end")
        for node in (a, b):
            await node.until(_live(node), "the state 'live'")
            assert await node.receive_until(b"end") == [b"before", *sent]

    @needs("log", faults=("take_down", "bring_up"))
    async def test_unreachable_broker_fails_fast_and_recovers(
        self,
        open_peer: OpenPeer,
        make_peer: Callable[..., LogPeer],
        cause: Cause,
        broker_class: type[LogBroker],
    ) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        await cause("take_down")
        try:
            await _publish_until_failure(a)
            for ask in (a.broker.heads([0]), a.broker.send_control(b"x"), make_peer().start()):
                with pytest.raises(BrokerUnavailable):
                    await a.within(ask)
            for node in (a, b):
                await node.until(_troubled(node), "the state 'degraded' or 'blocked'")
        finally:
            await cause("bring_up")
        for node in (a, b):
            await node.until(_live(node), "the state 'live'")
        await a.insist("t", b"again")
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
