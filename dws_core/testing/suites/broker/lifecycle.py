"""Broker suite: start, stop and leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings
from collections.abc import Callable

import pytest

from dws_core.plugin import (
    BrokerClosed,
    BrokerUnavailable,
    Delivery,
    LayoutMismatch,
    LogBroker,
    ReadResult,
    ReadSpan,
    Receipt,
    partition_of,
)
from dws_core.testing.suites.broker.base import BrokerBase, CountOperations, OpenPeer
from dws_core.testing.suites.peers import LogPeer, Peer, PlainPeer
from dws_core.testing.suites.selection import needs


class BrokerLifecycleTests(BrokerBase):
    """Brokers work between start and stop only, and leave nothing behind."""

    async def test_publish_before_start_raises_broker_closed(self, make_peer: Callable[..., Peer]) -> None:
        with pytest.raises(BrokerClosed):
            await make_peer().publish(b"x")

    async def test_publish_after_stop_raises_broker_closed(self, open_peer: OpenPeer) -> None:
        peer = await open_peer()
        await peer.close()
        with pytest.raises(BrokerClosed):
            await peer.publish(b"x")

    async def test_repeated_stop_is_no_error(self, open_peer: OpenPeer, make_peer: Callable[..., Peer]) -> None:
        peer = await open_peer()
        await peer.close()
        await peer.close()
        await make_peer().close()

    async def test_start_and_stop_leak_nothing(self, make_peer: Callable[..., Peer]) -> None:
        before = asyncio.all_tasks()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            peer = make_peer()
            await peer.open()
            await peer.publish(b"x")
            await peer.receive(1)
            await peer.close()
            assert asyncio.all_tasks() - before == set()
            del peer
            gc.collect()
        assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []

    @needs("plain")
    async def test_disconnect_ends_deliveries(self, open_peer: OpenPeer) -> None:
        peer: PlainPeer = await open_peer()
        deliveries = peer.broker.deliveries()
        await peer.publish(b"x")
        assert (await peer.within(anext(deliveries))).payload == b"x"
        await peer.close()

        async def read_to_the_end() -> list[Delivery]:
            return [delivery async for delivery in deliveries]

        assert await peer.within(read_to_the_end()) == []

    @needs("log")
    async def test_calls_outside_start_and_stop_raise_broker_closed(self, make_peer: Callable[..., LogPeer]) -> None:
        async def expect_closed(peer: LogPeer) -> None:
            broker = peer.broker
            with pytest.raises(BrokerClosed):
                await broker.set_interest(frozenset({0}))
            with pytest.raises(BrokerClosed):
                await broker.heads([0])
            with pytest.raises(BrokerClosed):
                await broker.send_control(b"x")
            with pytest.raises(BrokerClosed):
                await broker.read(
                    ReadSpan(partition=0, since=0, until=1, epoch="0", topics=["t"], limit=1, max_bytes=1)
                )

        peer = make_peer()
        await expect_closed(peer)
        await peer.open()
        await peer.close()
        await expect_closed(peer)

    @needs("log")
    async def test_sink_receives_states_live_and_closed(self, make_peer: Callable[..., LogPeer]) -> None:
        peer = make_peer()
        await peer.start()
        await peer.until(lambda: "live" in peer.sink.states, "the state 'live'")
        await peer.close()
        assert peer.sink.states[-1] == "closed"

    @needs("log")
    async def test_stopped_node_receives_nothing(self, open_peer: OpenPeer) -> None:
        stopped, other = await open_peer(), await open_peer()
        await stopped.close()
        await other.publish(b"after the stop")
        assert await other.receive(1) == [b"after the stop"]
        assert stopped.received == []
        assert stopped.violations == []

    @needs("log")
    async def test_stop_sends_queue_and_completes_every_publish(self, open_peer: OpenPeer) -> None:
        sender, other = await open_peer(), await open_peer()
        futures = [sender.submit("t", b"%d" % n) for n in range(100)]
        await sender.close()
        assert all(future.done() for future in futures)
        stored = [b"%d" % n for n, future in enumerate(futures) if future.exception() is None]
        assert len(stored) == len(futures), [repr(f.exception()) for f in futures if f.exception()][:3]
        assert await other.receive(len(stored)) == stored

    @needs("log", "recovery")
    async def test_stop_completes_every_read(self, open_peer: OpenPeer) -> None:
        peer: LogPeer = await open_peer()
        receipt = await peer.send("t", b"x")
        reads = [asyncio.ensure_future(_read_all(peer, receipt)) for _ in range(10)]  # noqa: TID251 -- awaited below
        await asyncio.sleep(0)
        await peer.close()
        for answer in await peer.within(asyncio.gather(*reads, return_exceptions=True)):
            assert isinstance(answer, ReadResult | BrokerClosed | BrokerUnavailable), repr(answer)

    @needs("log")
    async def test_cancelled_start_leaks_nothing(self, make_peer: Callable[..., LogPeer]) -> None:
        before = asyncio.all_tasks()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for turns in (0, 1, 2, 5, 20, 100, 500):
                peer = make_peer()
                starting = asyncio.ensure_future(peer.start())  # noqa: TID251 -- awaited below
                for _ in range(turns):
                    await asyncio.sleep(0)
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
                await peer.close()
                assert asyncio.all_tasks() - before == set()
            del peer, starting
            await asyncio.sleep(0)  # closed transports are released in the next tick
            gc.collect()
        assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []

    @needs("log")
    async def test_cancelled_stop_leaks_nothing(self, make_peer: Callable[..., LogPeer]) -> None:
        before = asyncio.all_tasks()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for turns in (0, 1, 2, 5):
                peer = make_peer()
                await peer.open()
                stopping = asyncio.ensure_future(peer.broker.stop())  # noqa: TID251 -- awaited below
                for _ in range(turns):
                    await asyncio.sleep(0)
                stopping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await stopping
                await peer.close()
                if left := asyncio.all_tasks() - before:  # tasks that are ending may need more time
                    await peer.within(asyncio.wait(left))
            del peer, stopping
            await asyncio.sleep(0)
            gc.collect()
        assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []

    @needs("log")
    async def test_cancelled_publish_is_stored_before_stop(self, open_peer: OpenPeer) -> None:
        sender, other = await open_peer(), await open_peer()
        sender.submit("t", b"cancelled").cancel()
        await sender.close()
        await other.publish(b"after the stop")
        assert await other.receive_until(b"after the stop") == [b"cancelled"]

    @needs("log")
    async def test_cancelled_set_interest_does_not_affect_others(self, open_peer: OpenPeer) -> None:
        peer: LogPeer = await open_peer()
        everything = frozenset(range(peer.layout.partitions))
        for turns in (0, 1, 2, 5):
            await peer.unsubscribe()
            setting = asyncio.ensure_future(peer.broker.set_interest(everything))  # noqa: TID251 -- awaited below
            for _ in range(turns):
                await asyncio.sleep(0)
            setting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await setting
            await peer.subscribe()
            await peer.publish(b"%d" % turns)
            assert await peer.receive(1) == [b"%d" % turns]

    @needs("log", fixture="count_operations")
    async def test_idle_node_stays_within_promised_rate(
        self,
        open_peer: OpenPeer,
        count_operations: CountOperations,
        broker_class: type[LogBroker],
    ) -> None:
        await open_peer()
        before, began = await count_operations(), time.monotonic()
        await asyncio.sleep(2.0)  # a rate is measured over a time
        rate = (await count_operations() - before) / (time.monotonic() - began)
        assert rate <= broker_class.capabilities.idle_ops_per_s + 1.0, (
            "the tolerance covers the requests of the count itself"
        )

    @needs("log")
    async def test_different_partition_count_is_rejected(
        self, open_peer: OpenPeer, make_peer: Callable[..., LogPeer]
    ) -> None:
        first = await open_peer()
        await first.publish(b"x")
        other = make_peer(partitions=first.layout.partitions + 1)
        with pytest.raises(LayoutMismatch):
            await other.start()
        await other.close()


async def _read_all(peer: LogPeer, receipt: Receipt) -> ReadResult:
    partition = partition_of("t", peer.layout)
    return await peer.read_after(["t"], 0, epoch=receipt.epoch, until=receipt.offset, partition=partition)
