"""Broker suite, logs only: a node that stood still receives everything that was stored in the meantime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from dws_core.plugin import BrokerUnavailable, History, ReadResult, Receipt, Record
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_COUNT: Final = 10_000
_KEPT: Final = History(size=2 * _COUNT)


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
