"""Broker suite: order, positions and concurrency."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from dws_core.plugin import BrokerInterface, History, LogBroker, partition_of
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer, Peer, PlainPeer
from dws_core.testing.suites.selection import needs


class BrokerOrderTests(BrokerBase):
    """Messages of one publisher arrive in order. A log has the same order on all nodes."""

    async def test_thousand_messages_arrive_in_order(
        self, open_peer: OpenPeer, broker_class: type[BrokerInterface] | type[LogBroker]
    ) -> None:
        a, b = await open_peer(), await open_peer()
        sent = [b"%d" % number for number in range(1000)]
        for payload in sent:
            await a.publish(payload)
        received = await b.receive(1000)
        if _is_ordered(broker_class):
            assert received == sent
        else:
            assert sorted(received) == sorted(sent)

    async def test_concurrent_publishers_lose_nothing(
        self, open_peer: OpenPeer, broker_class: type[BrokerInterface] | type[LogBroker]
    ) -> None:
        nodes = [await open_peer() for _ in range(3)]
        sent = {b"%d-%d" % (publisher, n) for publisher in range(10) for n in range(20)}

        async def publish(publisher: int) -> None:
            for number in range(20):
                await nodes[publisher % 2].publish(b"%d-%d" % (publisher, number))

        async with asyncio.TaskGroup() as group:
            for publisher in range(10):
                group.create_task(publish(publisher))
        for node in nodes:
            received = await node.receive(len(sent))
            assert set(received) == sent
            for publisher in range(10) if _is_ordered(broker_class) else ():
                own = [payload for payload in received if payload.startswith(b"%d-" % publisher)]
                assert own == sorted(own, key=lambda payload: int(payload.partition(b"-")[2]))

    @needs("plain", "ordering=total")
    async def test_all_nodes_see_one_order_if_promised(self, open_peer: OpenPeer) -> None:
        nodes: list[Peer] = [await open_peer() for _ in range(2)]
        await asyncio.gather(*(node.publish(b"%d-%d" % (i, n)) for n in range(50) for i, node in enumerate(nodes)))
        assert await nodes[0].receive(100) == await nodes[1].receive(100)

    @needs("plain")
    async def test_cancelled_receive_loses_nothing(self, open_peer: OpenPeer) -> None:
        a: PlainPeer = await open_peer()
        b: PlainPeer = await open_peer()
        for number in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await b.next()
            await a.publish(b"%d" % number)
            assert await b.receive(1) == [b"%d" % number]

    @needs("plain")
    async def test_node_that_does_not_read_delays_no_other(self, open_peer: OpenPeer) -> None:
        await open_peer()  # this node never reads
        a, b = await open_peer(), await open_peer()
        for number in range(500):
            await a.publish(b"%d" % number + b"x" * 1000)
        assert len(await b.receive(500)) == 500

    @needs("log")
    async def test_all_nodes_see_one_order_with_growing_offsets(self, open_peer: OpenPeer) -> None:
        nodes: list[LogPeer] = [await open_peer() for _ in range(2)]

        async def publish(publisher: int) -> list[tuple[int, int | None, bytes]]:
            done = []
            for number in range(20):
                topic, payload = f"t{publisher % 3}", b"%d-%d" % (publisher, number)
                receipt = await nodes[publisher % 2].send(topic, payload)
                done.append((partition_of(topic, nodes[0].layout), receipt.offset, payload))
            return done

        receipts = await asyncio.gather(*(publish(publisher) for publisher in range(10)))
        for node in nodes:
            await node.receive(200)
            for partition in range(node.layout.partitions):
                received = [
                    (partition, record.offset, record.payload)
                    for record in node.records
                    if partition_of(record.topic, node.layout) == partition
                ]
                offsets = [offset or 0 for _, offset, _ in received]
                assert all(first < second for first, second in pairwise(offsets))
                acknowledged = [entry for done in receipts for entry in done if entry[0] == partition]
                assert received == sorted(acknowledged, key=lambda entry: entry[1] or 0), "receipts contain the offsets"

    @needs("log")
    @pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
    async def test_publishes_of_one_tick_keep_their_order(self, open_peer: OpenPeer, count: int) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        sent = [b"%d" % number for number in range(count)]
        receipts = await a.within(asyncio.gather(*(a.submit("t", payload) for payload in sent)))
        offsets = [receipt.offset for receipt in receipts]
        for node in (a, b):
            assert await node.receive(count) == sent
            assert [record.offset for record in node.records] == offsets

    @needs("log")
    async def test_restarted_node_finds_same_epoch(self, open_peer: OpenPeer) -> None:
        """The next offset is higher."""
        a: LogPeer = await open_peer()
        first = await a.send("t", b"1")
        again: LogPeer = await open_peer()
        await again.close()
        again = await open_peer()
        second = await again.send("t", b"2")
        assert second.epoch == first.epoch
        assert (second.offset or 0) > (first.offset or 0)
        partition = partition_of("t", a.layout)
        head = (await a.within(a.broker.heads([partition])))[partition]
        assert (head.partition, head.epoch) == (partition, second.epoch)
        assert head.offset >= (second.offset or 0)

    @needs("log")
    async def test_ranges_are_contiguous_while_interest_changes(self, open_peer: OpenPeer) -> None:
        sender: LogPeer = await open_peer(partitions=3)
        listener: LogPeer = await open_peer(partitions=3)
        topics = [f"t{number % 30}" for number in range(300)]

        async def come_and_go() -> None:
            for partitions in ((0,), (0, 1), (2,), (), (1, 2), (0, 1, 2)) * 5:
                await listener.tail(*partitions)

        await asyncio.gather(sender.send_all(topics), come_and_go())
        sent = await sender.send_all([f"end/{number}" for number in range(9)])
        await listener.until(lambda: _heard(listener, "end/") >= 9, "the messages after the last set_interest()")
        ends = {(record.topic, record.offset) for record in listener.records if record.topic.startswith("end/")}
        assert ends == {(f"end/{number}", receipt.offset) for number, receipt in enumerate(sent)}

    @needs("log")
    async def test_message_without_history_keeps_its_order(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        kinds = [History(), History.none()]
        futures = [a.submit("t", b"%d" % number, history=kinds[number % 3 == 0]) for number in range(100)]
        await a.within(asyncio.gather(*futures))
        for node in (a, b):
            assert await node.receive(100) == [b"%d" % number for number in range(100)]

    @needs("log")
    async def test_last_set_interest_wins(self, open_peer: OpenPeer) -> None:
        sender: LogPeer = await open_peer(partitions=1)
        node: LogPeer = await open_peer(partitions=1)
        await node.tail()
        node.sink.expect_interest(frozenset({0}))
        choices = [frozenset({0}), frozenset[int](), frozenset({0})]
        await node.within(asyncio.gather(*map(node.broker.set_interest, choices)))
        await sender.send("t", b"heard")
        assert await node.receive(1) == [b"heard"]


def _is_ordered(broker_class: type[BrokerInterface] | type[LogBroker]) -> bool:
    return getattr(broker_class.capabilities, "ordering", "total") != "none"


def _heard(peer: LogPeer, start: str) -> int:
    return sum(record.topic.startswith(start) for record in peer.records)
