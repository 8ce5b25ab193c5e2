"""Broker suite, logs only: clients that change nodes lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import pytest

from dws_core.plugin import History, partition_of
from dws_core.testing.suites.broker.base import BrokerBase
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.roaming import Roamer, RoamingSink, Sent
from dws_core.testing.suites.selection import needs

MakePeer: TypeAlias = Callable[..., LogPeer]
Step: TypeAlias = tuple[str | int, ...]

_ROUNDS: Final = 60
"""How often each publisher publishes at least. Where clients change nodes slowly, it goes on until all have done so."""


class BrokerRecoveryTests(BrokerBase):
    """Exactly once, in order, on whichever node; or a gap that says so."""

    @needs("log", "recovery")
    async def test_clients_changing_nodes_receive_each_record_once(self, make_peer: MakePeer) -> None:
        """The records arrive in order, also while others publish."""
        async with _open_nodes(make_peer) as nodes:
            clients = [Roamer([f"room/{n}"]) for n in range(3)]
            clients += [Roamer(lambda topic: topic.startswith("room/")) for _ in range(3)]
            for client in clients:  # from here on, all of them want everything
                await client.attach(nodes[0])
            await _publish_while_they_hop(nodes, clients)

    @needs("log", "recovery")
    def test_roaming_clients_receive_every_record_or_gap(self, make_peer: MakePeer) -> None:
        pytest.importorskip("hypothesis", reason="needs hypothesis: pip install 'dws-core[testing]'")
        from dws_core.testing.suites.strategies import SCENARIOS, check_all  # noqa: PLC0415 -- optional

        with asyncio.Runner() as runner:
            nodes = _open_nodes(make_peer)
            world = World(runner.run(nodes.__aenter__()))

            try:
                check_all(SCENARIOS, lambda scenario: runner.run(world.play(*scenario)))
                assert world.recovered > len(world.nodes), "the scenarios are of some use"
            finally:
                runner.run(nodes.__aexit__(None, None, None))


class World:
    """Two nodes and three clients, and the steps that may happen to them. Each scenario has topics of its own."""

    def __init__(self, nodes: list[LogPeer]) -> None:
        self.nodes = nodes
        self.scenarios = 0
        self.recovered = 0

    async def play(self, size: int, steps: list[Step]) -> None:
        """Play a scenario; `size` is that of the topics' history."""
        self.scenarios += 1
        name, self.history, self.sent = f"scenario/{self.scenarios}/", History(size=size), list[Sent]()
        self.topics = [f"{name}{letter}" for letter in "abc"]
        self.clients = [Roamer([self.topics[0]]), Roamer(self.topics[:2]), Roamer(lambda t: t.startswith(name))]
        self.coming: dict[int, asyncio.Task[None]] = {}
        try:
            for step, *arguments in steps:
                await getattr(self, str(step))(*arguments)
            await self.settle()
        finally:
            for number in range(len(self.clients)):
                await self.detach(number)
        for client in self.clients:
            client.check(self.sent)
            self.recovered += client.recovered
            assert size < len(self.sent) or not client.gaps, f"a gap {client.gaps} although everything was kept"

    async def publish(self, node: int, topic: int, count: int) -> None:
        """Publish through a node."""
        for _ in range(count):
            await _publish(self.nodes[node], self.topics[topic], self.sent, history=self.history)

    async def attach(self, client: int, node: int) -> None:
        """Begin to come to a node; what follows happens meanwhile."""
        await self.detach(client)
        coming = self.clients[client].attach(self.nodes[node])
        self.coming[client] = asyncio.get_running_loop().create_task(coming)

    async def wait(self, client: int) -> None:
        """Let a client arrive."""
        if client in self.coming:
            await self.coming[client]

    async def tick(self) -> None:
        """Let a little happen."""
        await asyncio.sleep(0)

    async def detach(self, client: int) -> None:
        """Lose the connection, perhaps before the answer."""
        if (coming := self.coming.pop(client, None)) is not None:
            coming.cancel()
            await asyncio.wait({coming})
            self.clients[client].detach()

    async def hold(self, node: int) -> None:
        """Make a node slow."""
        _sink(self.nodes[node]).hold()

    async def release(self, node: int) -> None:
        """Make it quick again."""
        _sink(self.nodes[node]).release()

    async def settle(self) -> None:
        """Let everybody have everything."""
        for node in self.nodes:
            _sink(node).release()
            await _until_heard(node)
        for number in range(len(self.clients)):
            await self.attach(number, number % len(self.nodes))
            await self.wait(number)


async def _publish_while_they_hop(nodes: list[LogPeer], clients: list[Roamer]) -> None:
    sent: list[Sent] = []
    over = False

    def enough() -> bool:
        return all(client.hops > 3 and client.recovered > 0 for client in clients)

    def or_over(happened: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: over or happened()

    async def hop(client: Roamer, turn: int) -> None:
        while not over:
            client.detach()
            received = len(nodes[0].records)
            await nodes[0].until(
                or_over(lambda: any(client.wants(r.topic) for r in nodes[0].records[received:])),  # noqa: B023 -- awaited here
                "a message for a client that is away",
            )
            had, turn = client.count, turn + 1
            await client.attach(nodes[turn % 2])
            await nodes[turn % 2].until(or_over(lambda: client.count > had), "a message for a client that has come")  # noqa: B023 -- awaited here

    async with asyncio.TaskGroup() as group:
        for number, client in enumerate(clients):
            group.create_task(hop(client, number))
        async with asyncio.TaskGroup() as publishers:
            for publisher in range(2):
                publishers.create_task(_publish_rounds(nodes, publisher, sent, enough))
        over = True
        await asyncio.gather(*(_publish(nodes[0], f"end/{number}", sent) for number in range(100)))  # wakes every node
    for node in nodes:
        await _until_heard(node)
    for client in clients:
        client.check(sent)
        assert client.gaps == []
    assert enough(), [(client.hops, client.recovered) for client in clients]


async def _publish_rounds(nodes: list[LogPeer], publisher: int, sent: list[Sent], enough: Callable[[], bool]) -> None:
    for number in range(10 * _ROUNDS):
        if number >= _ROUNDS and enough():
            break
        node, topic = nodes[number % 2], f"room/{(publisher + number) % 4}"
        await asyncio.gather(*(_publish(node, topic, sent) for _ in range(5)))


async def _publish(node: LogPeer, topic: str, sent: list[Sent], *, history: History | None = None) -> None:
    payload = b"%d" % len(sent)
    receipt = await node.send(topic, payload, history=history)
    assert receipt.offset is not None
    sent.append((partition_of(topic, node.layout), receipt.offset, topic, payload))


async def _until_heard(node: LogPeer) -> None:
    """Wait until a node has received all that is stored."""
    heads = await node.within(node.broker.heads(range(node.layout.partitions)))
    await node.until(
        lambda: all(node.sink.positions[p][1] >= head.offset for p, head in heads.items()),
        "the watermark to reach the head",
    )


@asynccontextmanager
async def _open_nodes(make_peer: MakePeer) -> AsyncIterator[list[LogPeer]]:
    nodes = [make_peer() for _ in range(2)]
    try:
        for node in nodes:
            node.sink = RoamingSink()
            await node.open()
        yield nodes
    finally:
        for node in nodes:
            await node.close()
    assert not [fault for node in nodes for fault in node.violations]


def _sink(node: LogPeer) -> RoamingSink:
    assert isinstance(node.sink, RoamingSink)
    return node.sink
