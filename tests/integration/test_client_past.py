"""The Python client with `last`: real nodes, and connections that are cut while the past arrives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any, cast

import pytest
from support.apps import chat
from support.clients import Gaps, client, receive_data
from support.cutting_proxy import CuttingProxy
from support.resume import slow_node
from support.scripted import ScriptedConnection, scripted
from support.servers import serve

from dws_core import InvalidFilter
from dws_core.client import Refused


async def test_past_is_followed_by_live_messages() -> None:
    manager, app = chat()
    async with serve(app) as server:
        for n in range(60):
            await manager.publish("room", n)
        async with client(f"{server.url}/ws/me") as alice, alice.subscribe("room", last=50) as messages:
            assert await receive_data(messages, 50) == list(range(10, 60))
            await manager.publish("room", 60)
            assert await receive_data(messages, 1) == [60]


async def test_each_subscription_receives_its_own_past() -> None:
    """Other subscriptions of the same messages receive nothing twice."""
    manager, app = chat()
    async with serve(app) as server, client(f"{server.url}/ws/me") as alice:
        async with alice.subscribe("#") as everything, alice.subscribe("room") as live:
            await manager.publish("room", 1)
            async with alice.subscribe("room", last=5) as first, alice.subscribe("room", last=1) as second:
                assert await receive_data(first, 1) == [1]
                await manager.publish("room", 2)
                for subscription, expected in ((first, [2]), (second, [1, 2]), (everything, [1, 2]), (live, [1, 2])):
                    assert await receive_data(subscription, len(expected)) == expected
            await manager.publish("room", 3)
            assert await receive_data(live, 1) == [3], "the filter is still needed"


async def test_subscription_before_connection_opens_with_past() -> None:
    manager, app = chat()
    async with serve(app) as server:
        await manager.publish("room", 1)
        alice = client(f"{server.url}/ws/me")
        messages = alice.subscribe("room", last=5)
        async with alice:
            assert await receive_data(messages, 1) == [1]


async def test_refused_past_ends_subscription() -> None:
    _, app = chat(authorize=lambda principal, action, subject: action != "history")
    async with serve(app) as server, client(f"{server.url}/ws/me") as alice:
        with pytest.raises(Refused, match="not allowed"):
            async with alice.subscribe("room", last=5):
                pass
        with pytest.raises(Refused, match="wildcards"):
            await alice.subscribe("room/#", last=5).ready()
        with pytest.raises(InvalidFilter):
            alice.subscribe("room/#/x", last=5)
        async with alice.subscribe("room"):
            pass


async def test_temporary_refusal_of_past_is_retried() -> None:
    requests: list[dict[str, Any]] = []

    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect("0:e:3")
        for _ in range(2):
            requests.append(await peer.receive("subscribe"))
            if len(requests) == 1:
                refusal = {"code": "unavailable", "message": "no", "temporary": True, "retry_in_s": 0.001}
                await peer.send(type="error", id=requests[0]["id"], **refusal)
        number = requests[1]["id"]
        await peer.send(type="ack", id=number, cursor="0:e:3", recovered=True)
        await peer.send(type="message", topic="t", data="past", pos="0:e:4", replay=number)
        await peer.send(type="replayed", id=number, cursor="0:e:4")

    async with scripted(node) as url, client(url) as alice, alice.subscribe("t", last=5) as messages:
        assert await receive_data(messages, 1) == ["past"]
    assert [request["last"] for request in requests] == [5, 5]


def _bytes_each(rng: random.Random) -> Iterator[int]:
    """Cut each connection after a few frames, at any byte. Every fourth one lasts longer, so that all make progress."""
    while True:
        for longest in (900, 2_000, 4_000, 20_000):
            yield rng.randint(150, longest)


async def test_cut_connections_lose_no_message_of_past() -> None:
    """Several topics are opened on two nodes while messages are published, and their replays overlap."""
    seed = random.randrange(2**32)
    rng, topics, past, total = random.Random(seed), [f"t/{n}" for n in range(4)], 100, 150
    nodes = [slow_node("past cut", partitions=2) for _ in range(2)]
    gaps = Gaps()
    async with serve(nodes[0][2]) as a, serve(nodes[1][2]) as b:
        manager = nodes[0][1]
        for n in range(past):
            for topic in topics:
                await manager.publish(topic, n)
        async with CuttingProxy(cast("Any", [a, b]), _bytes_each(rng)) as proxy:
            async with client(f"{proxy.url}/ws/me", on_gap=gaps) as alice:
                subscriptions = [alice.subscribe(topic, last=past) for topic in topics]
                other = alice.subscribe("t/#")

                async def publish() -> None:
                    for n in range(past, total):
                        for topic in topics:
                            await manager.publish(topic, n)
                        await asyncio.sleep(0)

                for subscription in subscriptions:
                    await subscription.ready()
                await other.ready()
                async with asyncio.TaskGroup() as group:
                    group.create_task(publish())
                    found = [group.create_task(receive_data(one, total)) for one in subscriptions]
                    live = group.create_task(receive_data(other, (total - past) * len(topics)))
            assert proxy.breaks > 5, seed
    assert [task.result() for task in found] == [list(range(total))] * len(topics), seed
    assert sorted(live.result()) == sorted(list(range(past, total)) * len(topics)), seed
    assert gaps == [], seed
