"""Broker suite, logs only: each publish is stored once and can be read."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count

import pytest

from dws_core.plugin import BrokerUnavailable, History, PublishOutcomeUnknown, ReadResult, ReadSpan, partition_of
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs


class BrokerPublishTests(BrokerBase):
    """Each publish stores one record."""

    @needs("log")
    async def test_repeated_key_is_stored_once_on_any_node(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        first = await a.send("t", b"first", key="k")
        assert not first.duplicate
        await b.receive(1)
        for node in (b, a):
            repeat = await node.send("t", b"repeat", key="k")
            assert (repeat.epoch, repeat.offset, repeat.duplicate) == (first.epoch, first.offset, True)
        await a.send("t", b"end")
        for node, before in ((a, [b"first"]), (b, [])):
            assert await node.receive_until(b"end") == before

    @needs("log")
    async def test_concurrent_repeats_are_delivered_once(self, open_peer: OpenPeer) -> None:
        nodes: list[LogPeer] = [await open_peer() for _ in range(2)]
        await asyncio.gather(*(node.send("t", b"once", key="k") for node in nodes * 10))
        await nodes[0].send("t", b"end")
        for node in nodes:
            assert await node.receive_until(b"end") == [b"once"]

    @needs("log")
    async def test_key_applies_to_one_topic_and_channel(self, open_peer: OpenPeer, channel: str) -> None:
        a: LogPeer = await open_peer()
        stranger: LogPeer = await open_peer(f"{channel}-2")
        receipts = [await node.send(t, b"x", key="k") for node, t in ((a, "t"), (a, "t/u"), (stranger, "t"))]
        receipts.append(await a.send("t", b"x", key="other"))
        assert not any(receipt.duplicate for receipt in receipts)
        await a.receive(3)
        await stranger.receive(1)

    @needs("log")
    async def test_cancelled_publish_is_stored_in_order(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        futures = [a.submit("t", b"%d" % number) for number in range(10)]
        for future in futures[::2]:
            future.cancel()
        for future in futures[1::2]:
            await a.within(future)
        await a.send("t", b"end")
        assert await b.receive_until(b"end") == [b"%d" % number for number in range(10)]

    @needs("log")
    async def test_cancelled_publisher_blocks_no_other(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()

        async def publish_forever() -> None:
            for number in count():
                await a.submit("t", b"%d" % number)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(publish_forever(), 0.001)
        await a.send("t", b"end")
        received = await b.receive_until(b"end")
        assert received == [b"%d" % number for number in range(len(received))]

    @needs("log")
    async def test_repeat_after_unknown_outcome_is_stored_once(self, open_peer: OpenPeer) -> None:
        nodes: list[LogPeer] = [await open_peer() for _ in range(2)]
        for number in range(20):
            payload, key = b"%d" % number, f"k{number}"
            first = nodes[0].submit("t", payload, key=key, deadline_s=0.0)
            with contextlib.suppress(PublishOutcomeUnknown, BrokerUnavailable):
                await nodes[0].within(first)
            await nodes[number % 2].send("t", payload, key=key)
        await nodes[0].send("t", b"end")
        for node in nodes:
            assert await node.receive_until(b"end") == [b"%d" % number for number in range(20)]

    @needs("log")
    async def test_key_outlives_its_record(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        first = await a.send("t", b"first", history=History(size=1), key="k")
        await a.send("t", b"second", history=History(size=1))
        again = await b.send("t", b"again", history=History(size=1), key="k")
        assert (again.offset, again.duplicate) == (first.offset, True)
        await a.send("t", b"end")
        assert await b.receive_until(b"end") == [b"first", b"second"]

    @needs("log")
    async def test_key_applies_without_history(self, open_peer: OpenPeer) -> None:
        nodes: list[LogPeer] = [await open_peer() for _ in range(2)]
        receipts = [await node.send("t", b"once", history=History.none(), key="k") for node in nodes]
        assert [(receipt.offset, receipt.duplicate) for receipt in receipts] == [(None, False), (None, True)]
        await nodes[0].send("t", b"end")
        for node in nodes:
            assert await node.receive_until(b"end") == [b"once"]

    @needs("log", "recovery")
    async def test_stored_records_can_be_read(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        start = await a.send("t/0", b"before")
        sent = [await a.send(f"t/{n % 3}", b"%d" % n) for n in range(12)]
        partitions = {partition_of(f"t/{n}", a.layout) for n in range(3)}
        assert start.offset is not None
        for topics in (["t/0", "t/none"], lambda topic: topic == "t/0"):
            partition = partition_of("t/0", a.layout)
            own = [(r.offset, b"%d" % n) for n, r in enumerate(sent) if n % 3 == 0]
            result = await self._read(b, partition, start.offset, own[-1][0] or 0, start.epoch, topics)
            assert result.gap is None
            assert [(r.offset, r.payload) for r in result.records] == own
            assert {r.topic for r in result.records} == {"t/0"}
            assert {r.publisher for r in result.records} == {a.id}
        heads = await b.within(b.broker.heads(partitions))
        for partition, head in heads.items():
            result = await self._read(b, partition, head.offset, head.offset, head.epoch, lambda _: True)
            assert result == ReadResult()

    @needs("log", "recovery")
    async def test_read_ends_at_given_offset(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        receipts = [await a.send("t", b"%d" % n, history=History(size=50)) for n in range(10)]
        offsets = [receipt.offset or 0 for receipt in receipts]
        result = await self._read(a, partition_of("t", a.layout), offsets[2], offsets[6], receipts[0].epoch, ["t"])
        assert [record.offset for record in result.records] == offsets[3:7]

    async def _read(
        self, peer: LogPeer, partition: int, since: int, until: int, epoch: str, topics: object
    ) -> ReadResult:
        read = peer.broker.read(
            ReadSpan(
                partition=partition,
                since=since,
                until=until,
                epoch=epoch,
                topics=topics,  # type: ignore[arg-type]  # a list or a function
                limit=1000,
                max_bytes=1_000_000,
            )
        )
        return await peer.within(read)
