"""Broker suite: messages reach the right nodes."""

from __future__ import annotations

import asyncio
import sys

import pytest

from dws_core.plugin import History
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer, Sever
from dws_core.testing.suites.peers import LogPeer, PlainPeer
from dws_core.testing.suites.selection import needs

_LOOK_ALIKES = [
    ("{}*", "{}x"),
    ("{}?", "{}x"),
    ("{}[ab]", "{}a"),
    ("{}.", "{}x"),
    ("{}/#", "{}/x"),
    ("{}/+", "{}/x"),
    ("{}:a", "{}"),
    ("{} b", "{}"),
    ("{}%41", "{}A"),
    ("{}ünï-©", "{}un"),
    ("{}-" + "n" * 170, "{}-" + "n" * 169),
]
"""Pairs of channel names. If a broker treats the first one as a pattern, it matches the second one."""


class BrokerRoutingTests(BrokerBase):
    """Every subscribed node receives a message once, and no other node receives it."""

    @needs("", "ordering!=none")
    async def test_every_node_receives_publish_once(self, open_peer: OpenPeer) -> None:
        nodes = [await open_peer() for _ in range(3)]
        await nodes[0].publish(b"hello")
        await nodes[0].publish(b"end")
        for node in nodes:  # the first node is the publisher
            assert await node.receive_until(b"end") == [b"hello"]

    async def test_nodes_receive_from_each_other(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(), await open_peer()
        await a.publish(b"from a")
        assert await b.receive(1) == [b"from a"]
        await b.publish(b"from b")
        assert sorted(await a.receive(2)) == [b"from a", b"from b"], "the order of two publishers is not promised"

    async def test_node_misses_nothing_once_subscribed(self, open_peer: OpenPeer) -> None:
        sender, listener = await open_peer(), await open_peer()
        for number in range(200):
            await listener.unsubscribe()
            await listener.subscribe()
            await sender.publish(b"%d" % number)
            assert await listener.receive_until(b"%d" % number) == []

    @needs("", "ordering!=none")
    async def test_channels_are_separate(self, open_peer: OpenPeer, channel: str) -> None:
        one, two = await open_peer(), await open_peer(f"{channel}-2")
        for other, node in ((two, one), (one, two)):
            await other.publish(b"of another channel")
            await node.publish(b"end")
        assert await one.receive_until(b"end") == []
        assert await two.receive_until(b"end") == [b"of another channel"]

    @needs("", "ordering!=none")
    @pytest.mark.parametrize(("name", "look_alike"), _LOOK_ALIKES)
    async def test_channel_name_is_literal(self, open_peer: OpenPeer, channel: str, name: str, look_alike: str) -> None:
        node, other = await open_peer(name.format(channel)), await open_peer(look_alike.format(channel))
        await other.publish(b"not for you")
        await node.publish(b"end")
        assert await node.receive_until(b"end") == []
        assert await other.receive(1) == [b"not for you"]

    @needs("plain", "ordering!=none")
    async def test_unsubscribed_node_receives_nothing(self, open_peer: OpenPeer) -> None:
        sender, listener = await open_peer(), await open_peer()
        await listener.unsubscribe()
        await sender.publish(b"not for you")
        await listener.subscribe()
        await sender.publish(b"end")
        assert await listener.receive_until(b"end") == []

    @needs("plain", "ordering!=none")
    async def test_repeated_subscribe_delivers_once(self, open_peer: OpenPeer) -> None:
        node: PlainPeer = await open_peer()
        await node.subscribe()
        await node.publish(b"once")
        await node.publish(b"end")
        assert await node.receive_until(b"end") == [b"once"]

    @needs("plain")
    async def test_unsubscribe_without_subscription_is_no_error(self, open_peer: OpenPeer, channel: str) -> None:
        node: PlainPeer = await open_peer()
        await node.broker.unsubscribe(f"{channel}-unknown")
        await node.unsubscribe()
        await node.unsubscribe()

    @needs("plain")
    async def test_delivery_names_its_channel(self, open_peer: OpenPeer, channel: str) -> None:
        node: PlainPeer = await open_peer()
        for name in (f"{channel}-2", f"{channel}-3"):
            await node.within(node.broker.subscribe(name))
            await node.within(node.broker.publish(name, name.encode()))
        await node.receive(2)
        assert sorted((d.channel, d.payload.decode()) for d in node.deliveries) == [
            (f"{channel}-2", f"{channel}-2"),
            (f"{channel}-3", f"{channel}-3"),
        ]

    @needs("log", "partition_interest")
    async def test_partition_without_interest_is_not_received(self, open_peer: OpenPeer) -> None:
        node: LogPeer = await open_peer(partitions=2)
        await node.tail(1)
        node.sink.wanted = frozenset({0, 1})  # the sink must not filter
        for partition, payload in ((0, b"not for you"), (1, b"end")):
            await node.within(node.broker.publish(partition, "t", payload, history=History()))
        assert await node.receive_until(b"end") == []

    @needs("log")
    async def test_messages_without_history_have_no_position(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(), await open_peer()
        kept = [await a.send("kept", b"1"), await a.send("gone", b"2", history=History.none()), await a.send("kept")]
        assert kept[1].offset is None
        for node in (a, b):
            await node.receive(3)
            assert [(r.topic, r.offset) for r in node.records] == [
                ("kept", kept[0].offset),
                ("gone", None),
                ("kept", kept[2].offset),
            ]

    @needs("plain", "cross_process")
    async def test_other_process_is_received(self, open_peer: OpenPeer, broker_url: str) -> None:
        await _hear_another_process(await open_peer(), broker_url)

    @needs("log", "cross_process")
    async def test_other_process_is_received_through_log(self, open_peer: OpenPeer, broker_url: str) -> None:
        await _hear_another_process(await open_peer(), broker_url)

    @needs("log", fixture="sever")
    async def test_nothing_is_missing_after_broken_connection(self, open_peer: OpenPeer, sever: Sever) -> None:
        a, b = await open_peer(), await open_peer()
        await a.publish(b"before")
        await sever()
        await a.publish(b"after")
        await a.publish(b"end")
        for node in (a, b):
            assert await node.receive_until(b"end") == [b"before", b"after"]


async def _hear_another_process(node: LogPeer | PlainPeer, broker_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dws_core.testing.suites.publisher_process",
        broker_url,
        node.channel,
        "from another process",
    )
    assert await node.within(process.wait()) == 0, "the other process failed, see its output"
    assert await node.receive(1) == [b"from another process"]
