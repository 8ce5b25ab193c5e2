"""Broker suite, logs only: control messages, which may be lost or arrive twice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import pytest

from dws_core.plugin import BrokerUnavailable, ReadResult
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_PAYLOADS: Final = [b"", b"\0", bytes(range(256)), b"\r\n", "é🙂".encode(), b"x" * 4096]
_CUTS: Final = [("cut_tail",), ("cut_commands",), ("restart",)]


class BrokerControlTests(BrokerBase):
    """A control message reaches all nodes of its channel, if it is repeated, and no other node."""

    @needs("log")
    async def test_control_message_reaches_all_nodes_of_channel(self, open_peer: OpenPeer, channel: str) -> None:
        nodes = [await open_peer(), await open_peer()]
        stranger = await open_peer(f"{channel}-2")
        await _send(nodes[0], b"to all", nodes)
        await _send(stranger, b"elsewhere", [stranger])
        await _send(nodes[1], b"end", nodes)
        for node in nodes:
            assert set(node.sink.controls) == {(nodes[0].id, b"to all"), (nodes[1].id, b"end")}
        assert set(stranger.sink.controls) == {(stranger.id, b"elsewhere")}, "it is for the nodes of another channel"

    @needs("log")
    async def test_control_payload_arrives_unchanged(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(), await open_peer()
        for payload in _PAYLOADS:
            await _send(a, payload, [b])
        assert {payload for _, payload in b.sink.controls} == set(_PAYLOADS)

    @needs("log")
    async def test_control_message_reaches_node_that_tails_nothing(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(), await open_peer()
        await b.unsubscribe()
        await _send(a, b"x", [b])

    @needs("log", "recovery")
    async def test_control_message_is_not_in_history(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(partitions=1), await open_peer(partitions=1)
        start = await a.send("t", b"first")
        await _send(a, b"control", [a, b])
        await a.send("t", b"last")
        assert await b.receive_until(b"last") == [b"first"]
        result: ReadResult = await b.read_after(lambda _: True, start.offset or 0, epoch=start.epoch)
        assert [record.payload for record in result.records] == [b"last"]

    @pytest.mark.parametrize(
        "names", [pytest.param(names, id="+".join(names), marks=needs("log", faults=names)) for names in _CUTS]
    )
    async def test_control_messages_arrive_again_after_fault(
        self, open_peer: OpenPeer, cause: Cause, names: tuple[str, ...]
    ) -> None:
        nodes = [await open_peer(), await open_peer()]
        await _send(nodes[0], b"before", nodes)
        await cause(*names)
        await _send(nodes[0], b"after", nodes)
        await nodes[0].insist("t", b"end")
        for node in nodes:
            await node.until(lambda node=node: b"end" in node.received, "a message after the fault")


async def _send(sender: LogPeer, payload: bytes, receivers: Sequence[LogPeer]) -> None:
    """Send a control message repeatedly until it has arrived at all receivers."""

    async def send(receiver: LogPeer) -> bool:
        if (sender.id, payload) in receiver.sink.controls:
            return True
        with contextlib.suppress(BrokerUnavailable):
            await sender.within(sender.broker.send_control(payload))
        return False

    for receiver in receivers:
        await sender.poll_until(partial(send, receiver), f"the control message {payload[:20]!r} to arrive at a node")
