"""Broker suite, logs only: the outcome of a publish during a fault is exact, and no message is stored twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import pytest

from dws_core.plugin import BrokerOverloaded, BrokerUnavailable, PublishOutcomeUnknown, Receipt
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.load import Chance, Load
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_ROUNDS: Final = 12
_MOST_ROUNDS: Final = 100
_SECOND_FAULTS: Final[list[tuple[tuple[str, ...], tuple[str, ...]]]] = [
    (("restart", "cut_commands"), ()),
    (("cut_commands", "restart"), ()),
    (("restart", "restart"), ()),
    (("freeze", "thaw", "cut_commands"), ()),
    (("freeze", "thaw", "restart"), ()),
    (("take_down", "bring_up", "cut_tail"), ("durable!=none",)),
]
"""The faults in a row, and the capabilities that they need."""

_ENDS: Final = {"thaw", "bring_up"}
"""The methods that end a fault. They are called even if the test fails, so that the next test has a server."""

_PIECE: Final = 65_536
_SHORT_S: Final = 0.1
_NO_REPLY_LOST: Final = (
    "{} cuts lost no reply: each publish that was stored before a cut also received its reply before it. So this test "
    "has not tested a resend. Fix: let fault.{}() break the connections in the middle of the traffic, as a plain function "
    "in a thread and without first waiting for replies, and report the state 'degraded' when a connection is lost"
)
_NO_STORED: Final = (
    "no publish was stored that raised PublishOutcomeUnknown during fault.freeze(). So this test has not tested the "
    "outcome. Fix: let the server process what it received while it was frozen, after fault.thaw()"
)


class BrokerOutcomeTests(BrokerBase):
    """The outcomes of publishes without keys, so that the broker itself must prevent repeats."""

    @needs("log", "recovery", faults=("cut_commands",))
    async def test_random_cuts_store_each_message_once(self, open_peer: OpenPeer, cause: Cause) -> None:
        """The connections break at random moments, until a reply to a stored publish was lost at least once.

        A broker whose replies may also arrive through the tail loses them only if the tail breaks as well.
        """
        loads = await _open_loads(open_peer)
        chance, rounds = Chance(), 0
        ways = [("cut_commands",), ("cut_tail", "cut_commands")] if cause.has("cut_tail") else [("cut_commands",)]

        async def cut() -> None:
            nonlocal rounds
            while rounds < _ROUNDS or (rounds < _MOST_ROUNDS and not any(load.unanswered for load in loads)):
                await chance.pause(loads)
                await cause(*ways[rounds % len(ways)])
                rounds += 1

        await _run_during(loads, cut)
        sys.stdout.write(f"{rounds} cuts, {sum(len(load.unanswered) for load in loads)} lost replies\n")
        assert any(load.unanswered for load in loads), _NO_REPLY_LOST.format(rounds, "cut_commands")

    @needs("log", "recovery", faults=("restart",))
    async def test_random_restarts_store_each_message_once(self, open_peer: OpenPeer, cause: Cause) -> None:
        loads, chance = await _open_loads(open_peer), Chance()

        async def restart() -> None:
            for _ in range(3):
                await chance.pause(loads)
                await cause("restart")

        await _run_during(loads, restart)

    @pytest.mark.parametrize(
        "names",
        [
            pytest.param(n, id="-".join(n), marks=needs("log", "recovery", *durable, faults=n))
            for n, durable in _SECOND_FAULTS
        ],
    )
    async def test_second_fault_during_recovery_loses_nothing(
        self, open_peer: OpenPeer, cause: Cause, names: tuple[str, ...]
    ) -> None:
        """The second fault happens before the nodes have recovered from the first one."""
        loads, chance = await _open_loads(open_peer), Chance()

        async def strike() -> None:
            await chance.pause(loads)
            left = list(names)
            try:
                while left:
                    await cause(name := left.pop(0))
                    await chance.ticks()
                    if name == "freeze":
                        await _until_troubled(loads[0].peer)
            finally:
                await cause(*(name for name in left if name in _ENDS))
            await chance.pause(loads)

        await _run_during(loads, strike)

    @needs("log", "recovery", faults=("freeze", "thaw"))
    async def test_publish_without_reply_has_unknown_outcome(self, open_peer: OpenPeer, cause: Cause) -> None:
        """A publish that was sent to a frozen broker is stored when the broker continues. It is stored once."""
        loads = await _open_loads(open_peer)
        load, node = loads[0], loads[0].peer
        await node.publish(b"before")
        await cause("freeze")
        try:
            failing = load.submit(10, deadline_s=_SHORT_S)
            resent = load.submit(10, deadline_s=2 * node.hang_limit_s)
            await asyncio.sleep(0)
            failing += load.submit(10, deadline_s=_SHORT_S)
            await node.within(asyncio.wait(failing))
            assert not any(future.exception() is None for future in failing), (
                "a publish after fault.freeze() returned a receipt. Fix: let freeze() return when the server has stopped, "
                "for a process when its state is T"
            )
            await _until_troubled(node)
        finally:
            await cause("thaw")
        await node.within(asyncio.wait(resent))
        await _check(loads)
        assert load.unanswered, _NO_STORED

    @needs("log", faults=("take_down", "bring_up"))
    async def test_unsent_publish_is_certainly_not_stored(self, open_peer: OpenPeer, cause: Cause) -> None:
        loads = await _open_loads(open_peer)
        await cause("take_down")
        try:
            await loads[0].peer.poll_until(
                partial(_all_unsent, loads[0]),
                "publishes to raise BrokerUnavailable while the server is down. PublishOutcomeUnknown is only for a "
                "publish that was sent",
            )
        finally:
            await cause("bring_up")
        await _check(loads)

    @needs("log", faults=("take_down", "bring_up"))
    async def test_full_queue_raises_broker_overloaded(
        self, open_peer: OpenPeer, cause: Cause, queue_limit_bytes: int
    ) -> None:
        """A node that cannot send accepts a bounded number of bytes."""
        node: LogPeer = await open_peer()
        await cause("take_down")
        try:
            await _until_troubled(node)
            futures = await _fill(node, queue_limit_bytes)
            await node.within(asyncio.wait(futures))
            errors = {type(future.exception()) for future in futures}
            assert errors <= {BrokerOverloaded, BrokerUnavailable, PublishOutcomeUnknown}, errors
        finally:
            await cause("bring_up")
        await _until_live([node])
        await node.insist("t", b"after")


async def _open_loads(open_peer: OpenPeer) -> list[Load]:
    return [Load(await open_peer(), name) for name in ("a", "b")]


async def _run_during(loads: Sequence[Load], trouble: Callable[[], Awaitable[None]]) -> None:
    """Publish on both nodes during some faults, and check the outcomes on both."""
    try:
        async with asyncio.TaskGroup() as group:
            for load in loads:
                group.create_task(load.run())
            try:
                await trouble()
            finally:
                for load in loads:
                    load.stop()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the group would hide the sentence
    await _check(loads)


async def _check(loads: Sequence[Load]) -> None:
    """Wait until both nodes have received everything, and check the outcomes."""
    nodes = [load.peer for load in loads]
    await _until_live(nodes)
    ends: set[bytes] = set()
    for sender in nodes:
        for partition in range(sender.layout.partitions):
            end = b"end of %s in %d" % (sender.id.hex().encode(), partition)
            ends.add(end)
            await sender.insist(sender.topic_in(partition, "end"), end)
    for node in nodes:
        await node.until(partial(_has_received, node, ends), "a message in each partition after the fault")
    for load in loads:
        for node in nodes:
            load.check(node)


async def _until_troubled(node: LogPeer) -> None:
    await node.until(partial(_is_in, node, {"degraded", "blocked"}), "the state 'degraded' or 'blocked'")


async def _until_live(nodes: Sequence[LogPeer]) -> None:
    """Wait until nodes are connected again. A server without durable data may have lost messages."""
    for node in nodes:
        await node.until(partial(_is_in, node, {"live"}), "the state 'live'")
        if node.broker.capabilities.durable == "none":
            node.sink.take_losses()


def _is_in(node: LogPeer, states: set[str]) -> bool:
    return node.sink.states[-1] in states


def _has_received(node: LogPeer, ends: set[bytes]) -> bool:
    """Return whether all ends are among the last records, which are enough to find them."""
    return ends <= {record.payload for record in node.records[-2_000:]}


async def _all_unsent(load: Load) -> bool:
    """Publish to a server that is down, and return whether the outcomes show that nothing was sent."""
    futures = load.submit(5, deadline_s=_SHORT_S)
    await load.peer.within(asyncio.wait(futures))
    return all(isinstance(future.exception(), BrokerUnavailable | BrokerOverloaded) for future in futures)


async def _fill(node: LogPeer, limit_bytes: int) -> list[asyncio.Future[Receipt]]:
    """Publish until the node refuses to queue more."""
    piece = bytes(min(_PIECE, node.broker.capabilities.max_payload_bytes))
    futures: list[asyncio.Future[Receipt]] = []
    for _ in range(limit_bytes // len(piece) + 1):
        futures.append(node.submit("t", piece, deadline_s=1.0))
        if futures[-1].done():
            return futures
    raise AssertionError(
        f"a node that cannot reach its server queued {limit_bytes:,} bytes for one partition. Fix: bound the queue in "
        "bytes and raise BrokerOverloaded, or increase the fixture `queue_limit_bytes`"
    )
