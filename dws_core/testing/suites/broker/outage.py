"""Broker suite, logs only: an outage in which the broker keeps its data costs time, and neither messages nor their order.

The same holds for a node that stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from dws_core.plugin import (
    BrokerUnavailable,
    History,
    PublishOutcomeUnknown,
    ReadResult,
    ReadSpan,
    Receipt,
    Record,
    partition_of,
)
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_COUNT: Final = 10_000
_KEPT: Final = History(size=2 * _COUNT)

_OUTAGES: Final = {"take_down": ("bring_up", ("durable!=none",)), "freeze": ("thaw", ())}
"""The fault that begins an outage, the one that ends it, and the capabilities that keep the data."""

_MISSED: Final = [b"%d" % number for number in range(5)]
_SHORT_S: Final = 0.1
_ROUNDS: Final = 3

_outage = pytest.mark.parametrize(
    ("begin", "end"),
    [
        pytest.param(begin, end, id=begin, marks=needs("log", "recovery", *kept, faults=(begin, end)))
        for begin, (end, kept) in _OUTAGES.items()
    ],
)


class BrokerCatchUpTests(BrokerBase):
    """Nodes whose event loop stands still while another node stores many messages."""

    @needs("log", "recovery")
    async def test_node_that_stood_still_receives_everything(
        self, open_peer: OpenPeer, make_peer: Callable[..., LogPeer]
    ) -> None:
        await self._stand_still(open_peer, make_peer)

    @needs("log", "recovery", faults=("cut_tail",))
    async def test_ten_thousand_missed_records_are_caught_up(
        self, open_peer: OpenPeer, make_peer: Callable[..., LogPeer], cause: Cause
    ) -> None:
        """The connections break before the node stands still, so that it receives nothing of them live."""
        await self._stand_still(open_peer, make_peer, cause)

    async def _stand_still(
        self, open_peer: OpenPeer, make_peer: Callable[..., LogPeer], cause: Cause | None = None
    ) -> None:
        node: LogPeer = await open_peer(partitions=1)
        start = await node.send("t", b"start")
        await node.receive(1)
        if cause is not None:
            await cause("cut_tail")
        _run_in_standstill(_publish(make_peer(partitions=1)))
        await node.until(lambda: len(node.records) >= _COUNT + 1, f"{_COUNT} records that were stored meanwhile")
        expected = [b"%d" % number for number in range(_COUNT)]
        assert _first_difference(node.received[1:], expected) is None
        records = await _read_all(node, start)
        assert _first_difference([record.payload for record in records], expected) is None


async def _publish(peer: LogPeer) -> None:
    await peer.start()
    try:
        await peer.send_all(["t"] * _COUNT, history=_KEPT)
    finally:
        await peer.close()


async def _read_all(node: LogPeer, start: Receipt) -> Sequence[Record]:
    """Read the records after the first one. The broker may notice only now that its connection was silent for long."""
    found: list[ReadResult] = []

    async def read() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            found.append(await node.read_after(["t"], start.offset or 0, epoch=start.epoch))
        return bool(found)

    await node.poll_until(read, f"a read of {_COUNT} records")
    gap = found[0].gap
    assert gap is None, f"the read of {_COUNT} records is the gap {gap.value!r}, but its limit is 20,000 records"
    return found[0].records


def _run_in_standstill(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in another thread and event loop, and let this loop stand still until it has ended."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


def _first_difference(received: list[bytes], expected: list[bytes]) -> str | None:
    """Describe where records differ. pytest needs minutes for a complete diff of so many."""
    pairs = enumerate(zip(received, expected, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(received), len(expected)))
    if at == len(received) == len(expected):
        return None
    return f"record {at} is {received[at : at + 1]}, not {expected[at : at + 1]}, of {len(received)} received records"


class BrokerOutageTests(BrokerBase):
    """What the node needs to let clients wait for the broker, and to keep the order of their messages."""

    @_outage
    async def test_recovery_begun_during_outage_ends_after_it(
        self, open_peer: OpenPeer, cause: Cause, begin: str, end: str
    ) -> None:
        """A read waits or fails while the broker is away, and succeeds after that."""
        node: LogPeer = await open_peer()
        span = await _publish_missed(node)
        await cause(begin)
        try:
            recovery = asyncio.get_running_loop().create_task(_recover(node, span))
            await asyncio.wait({recovery}, timeout=_SHORT_S)
            await _until_troubled(node)
        finally:
            await cause(end)
        _check(await node.within(recovery))

    @_outage
    async def test_recovery_given_up_during_outage_may_be_repeated(
        self, open_peer: OpenPeer, cause: Cause, begin: str, end: str
    ) -> None:
        """The node cancels the read of a client whose patience has ended, and the client tries again later."""
        node: LogPeer = await open_peer()
        span = await _publish_missed(node)
        await cause(begin)
        try:
            given_up = [asyncio.get_running_loop().create_task(_recover(node, span)) for _ in range(3)]
            await asyncio.wait(given_up, timeout=_SHORT_S)
            await _until_troubled(node)
            for recovery in given_up:
                recovery.cancel()
            await asyncio.wait(given_up)
        finally:
            await cause(end)
        _check(await node.within(_recover(node, span)))

    @needs("log", "recovery", faults=("freeze", "thaw"))
    async def test_failed_publish_is_not_overtaken(self, open_peer: OpenPeer, cause: Cause) -> None:
        """The later publishes of the same order fail with it, and are then repeated in their order."""
        sender: LogPeer = await open_peer()
        receiver: LogPeer = await open_peer()
        await sender.publish(b"before")
        sent: list[bytes] = []
        for number in range(_ROUNDS):
            payloads = [b"%d/%d" % (number, place) for place in range(4)]
            await cause("freeze")
            try:
                await _fail_together(sender, payloads, ticks=number)
            finally:
                await cause("thaw")
            for payload in payloads:
                await sender.insist("t", payload)
            sent += payloads
        await sender.insist("t", b"end")
        assert await receiver.receive_until(b"end") == [b"before", *sent], (
            "a publish was stored before an earlier one of the same order that had failed. Fix: when a publish fails, fail "
            "all later ones with its `order` in the same step, and do not send them"
        )


async def _publish_missed(node: LogPeer) -> ReadSpan:
    """Publish the missed messages, and return their span."""
    base: Receipt = await node.send("t", b"base")
    last = [await node.send("t", payload) for payload in _MISSED][-1]
    await node.receive(1 + len(_MISSED))
    return ReadSpan(
        partition=partition_of("t", node.layout),
        epoch=base.epoch,
        since=base.offset or 0,
        until=last.offset or 0,
        topics=["t"],
        limit=100,
        max_bytes=1_000_000,
    )


async def _recover(node: LogPeer, span: ReadSpan) -> ReadResult:
    """Read a span, again and again while the broker cannot be reached."""
    while True:
        try:
            return await node.broker.read(span)
        except BrokerUnavailable:
            await asyncio.sleep(0.01)


async def _until_troubled(node: LogPeer) -> None:
    await node.until(lambda: node.sink.states[-1] in {"degraded", "blocked"}, "the state 'degraded' or 'blocked'")


def _check(result: ReadResult) -> None:
    assert (result.gap, [record.payload for record in result.records]) == (None, _MISSED), (
        f"a read that began during an outage returned the gap {result.gap}, or not all records, although nothing was lost. "
        "Fix: raise BrokerUnavailable while the broker cannot be reached"
    )


async def _fail_together(node: LogPeer, payloads: list[bytes], *, ticks: int) -> None:
    """Publish to a frozen broker, the first one with a short deadline, and check that the others fail with it."""
    first, *later = payloads
    failing = node.submit("t", first, key=first.decode(), order="o", deadline_s=_SHORT_S)
    for _ in range(ticks):
        await asyncio.sleep(0)  # in the same request as the first one, or in a later one
    futures = [node.submit("t", payload, key=payload.decode(), order="o") for payload in later]
    with pytest.raises((BrokerUnavailable, PublishOutcomeUnknown)):
        await node.within(failing)
    pending = sum(not future.done() for future in futures)
    errors = [future.exception() for future in futures if future.done()]
    assert not pending, (
        f"{pending} of {len(futures)} later publishes of the same order may still be stored, although the first one has "
        "failed. Fix: fail them in the same step"
    )
    assert all(isinstance(error, (BrokerUnavailable, PublishOutcomeUnknown)) for error in errors), errors
