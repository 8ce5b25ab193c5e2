"""Broker suite, logs only: clients that change nodes lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Final, TypeAlias

from dws_core.plugin import History, partition_of
from dws_core.testing.suites.broker.base import BrokerBase
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.roaming import Roamer, RoamingSink, Sent
from dws_core.testing.suites.selection import needs

MakePeer: TypeAlias = Callable[..., LogPeer]
Step: TypeAlias = tuple[str | int, ...]

_ROUNDS: Final = 60
"""Minimum number of rounds of each publisher. If clients change nodes slowly, it continues until all have done so."""


class BrokerRecoveryTests(BrokerBase):
    """Clients receive each record once and in order on any node, or a gap."""

    @needs("log", "recovery")
    async def test_clients_changing_nodes_receive_each_record_once(self, make_peer: MakePeer) -> None:
        """The records arrive in order, also while others publish."""
        async with _open_nodes(make_peer) as nodes:
            clients = [Roamer([f"room/{n}"]) for n in range(3)]
            clients += [Roamer(lambda topic: topic.startswith("room/")) for _ in range(3)]
            for client in clients:  # from now on, every record must reach its clients
                await client.attach(nodes[0])
            await MovingClients(nodes, clients).run()

    @needs("log", "recovery", package="hypothesis")
    def test_roaming_clients_receive_every_record_or_gap(self, make_peer: MakePeer) -> None:
        from dws_core.testing.suites.strategies import SCENARIOS, check_all  # noqa: PLC0415 -- optional

        with asyncio.Runner() as runner:
            nodes = _open_nodes(make_peer)
            world = World(runner.run(nodes.__aenter__()))

            try:
                check_all(SCENARIOS, lambda scenario: runner.run(world.play(*scenario)))
                assert world.recovered > len(world.nodes), "the scenarios must cause recoveries"
            finally:
                runner.run(nodes.__aexit__(None, None, None))


class World:
    """Two nodes and three clients, and the steps of a scenario. Each scenario has its own topics."""

    def __init__(self, nodes: list[LogPeer]) -> None:
        self.nodes = nodes
        self.scenarios: int = 0
        self.recovered: int = 0

    async def play(self, size: int, steps: list[Step]) -> None:
        """Run the steps of a scenario with this history size, and check the clients."""
        self.scenarios += 1
        name = f"scenario/{self.scenarios}/"
        self.history: History = History(size=size)
        self.sent: list[Sent] = []
        self.topics: list[str] = [f"{name}{letter}" for letter in "abc"]
        self.clients: list[Roamer] = [
            Roamer([self.topics[0]]),
            Roamer(self.topics[:2]),
            Roamer(lambda t: t.startswith(name)),
        ]
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
            assert size < len(self.sent) or not client.gaps, f"a gap {client.gaps}, but no record was dropped"

    async def publish(self, node: int, topic: int, times: int) -> None:
        """Publish through a node, in one tick."""
        publishes = (
            _publish(self.nodes[node], self.topics[topic], self.sent, history=self.history) for _ in range(times)
        )
        await asyncio.gather(*publishes)

    async def attach(self, client: int, node: int) -> None:
        """Start to attach a client to a node, concurrently with the next steps."""
        await self.detach(client)
        coming = self.clients[client].attach(self.nodes[node])
        self.coming[client] = asyncio.get_running_loop().create_task(coming)

    async def wait(self, client: int) -> None:
        """Wait until a client is attached."""
        if client in self.coming:
            await self.coming[client]

    async def tick(self) -> None:
        """Run one tick of the event loop."""
        await asyncio.sleep(0)

    async def detach(self, client: int) -> None:
        """Detach a client, possibly before it is attached."""
        if (coming := self.coming.pop(client, None)) is not None:
            coming.cancel()
            await asyncio.wait({coming})
            self.clients[client].detach()

    async def hold(self, node: int) -> None:
        """Hold back the events of a node."""
        _sink(self.nodes[node]).hold()

    async def release(self, node: int) -> None:
        """Deliver the held events of a node."""
        _sink(self.nodes[node]).release()

    async def settle(self) -> None:
        """Deliver all records to all nodes and clients."""
        for node in self.nodes:
            _sink(node).release()
        await asyncio.gather(*map(_until_heard, self.nodes))
        for number in range(len(self.clients)):
            await self.attach(number, number % len(self.nodes))
        await asyncio.gather(*map(self.wait, range(len(self.clients))))


class MovingClients:
    """Clients that change nodes while publishers publish to both nodes."""

    def __init__(self, nodes: list[LogPeer], clients: list[Roamer]) -> None:
        self._nodes = nodes
        self._clients = clients
        self._sent: list[Sent] = []
        self._published = False

    async def run(self) -> None:
        """Publish all messages while the clients move. Then check the clients."""
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self._clients):
                group.create_task(self._move(client, number))
            async with asyncio.TaskGroup() as publishers:
                for publisher in range(2):
                    publishers.create_task(self._publish(publisher))
            self._published = True
            ends = (_publish(self._nodes[0], f"end/{number}", self._sent) for number in range(100))
            await asyncio.gather(*ends)  # these messages end the waits of the clients
        for node in self._nodes:
            await _until_heard(node)
        self._check()

    async def _publish(self, publisher: int) -> None:
        for number in range(10 * _ROUNDS):
            if number >= _ROUNDS and self._moved_enough():
                break
            node, topic = self._nodes[number % 2], f"room/{(publisher + number) % 4}"
            await asyncio.gather(*(_publish(node, topic, self._sent) for _ in range(5)))

    async def _move(self, client: Roamer, turn: int) -> None:
        while not self._published:
            client.detach()
            await self._wait_for_wanted(client, self._nodes[0])
            turn += 1
            await client.attach(self._nodes[turn % 2])
            await self._wait_for_delivery(client, self._nodes[turn % 2])

    async def _wait_for_wanted(self, client: Roamer, node: LogPeer) -> None:
        start = len(node.records)
        await node.until(
            lambda: self._published or any(client.wants(record.topic) for record in node.records[start:]),
            "a message for a detached client",
        )

    async def _wait_for_delivery(self, client: Roamer, node: LogPeer) -> None:
        before = client.count
        await node.until(lambda: self._published or client.count > before, "a message for an attached client")

    def _moved_enough(self) -> bool:
        return all(client.hops > 3 and client.recovered > 0 for client in self._clients)

    def _check(self) -> None:
        for client in self._clients:
            client.check(self._sent)
            assert client.gaps == []
        assert self._moved_enough(), [(client.hops, client.recovered) for client in self._clients]


_numbers: Final = count()


async def _publish(node: LogPeer, topic: str, sent: list[Sent], *, history: History | None = None) -> None:
    payload = b"%d" % next(_numbers)
    receipt = await node.send(topic, payload, history=history)
    assert receipt.offset is not None
    sent.append((partition_of(topic, node.layout), receipt.offset, topic, payload))


async def _until_heard(node: LogPeer) -> None:
    """Wait until a node has received all stored records."""
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
