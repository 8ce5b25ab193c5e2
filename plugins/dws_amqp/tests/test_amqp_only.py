"""What only the RabbitMQ broker does: start-up checks, names, and messages without history beside the streams."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from dws_amqp import AmqpBroker
from dws_amqp._streams import Names
from services.rabbitmq import PrivateRabbit
from support.timeouts import HANG_S

from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable, BrokerURL, History, Layout, LayoutMismatch
from dws_core.testing.suites.recording_sink import RecordingSink

KEPT, NONE = History(), History.none()


@asynccontextmanager
async def started(url: str, channel: str = "c", *, partitions: int = 1, levels: int = 0) -> AsyncIterator[AmqpBroker]:
    broker = AmqpBroker.from_url(BrokerURL.parse(url))
    layout = Layout(channel=channel, partitions=partitions, shard_levels=levels)
    await broker.start(node=secrets.token_bytes(8), layout=layout, sink=RecordingSink())
    try:
        yield broker
    finally:
        await broker.stop()


async def end_of(broker: AmqpBroker) -> int:
    """Return the stream offset of a probe that is appended now."""
    return (await broker.heads([0]))[0].offset >> 16


# -- names


def test_names_of_different_channels_differ() -> None:
    channels = ["a", "A", "a.b", "a:b", "a b", "ä", "a" * 200, "a" * 201, "b" * 120]
    names = [Names("dws", Layout(channel=channel)).control for channel in channels]
    assert len(set(names)) == len(channels)
    assert max(map(len, names)) < 200
    assert names[0] == "dws.a.control"


# -- start-up


@pytest.mark.anyio
@pytest.mark.parametrize("other", [{"partitions": 3}, {"partitions": 2, "levels": 1}])
async def test_other_layout_is_named(rabbit: PrivateRabbit, other: dict[str, int]) -> None:
    async with started(rabbit.url, partitions=2):
        with pytest.raises(LayoutMismatch, match="2 partitions and shard_levels=0"):
            async with started(rabbit.url, **other):
                pass


@pytest.mark.anyio
async def test_stream_with_other_arguments_is_named(rabbit: PrivateRabbit) -> None:
    async with started(rabbit.url):
        with pytest.raises(BrokerMisconfigured, match=r"'dws\.c\.log\.0' exists with other arguments.*x-max-age"):
            async with started(rabbit.url + "?max_age_s=1h"):
                pass


@pytest.mark.anyio
async def test_missing_permission_is_named(rabbit: PrivateRabbit) -> None:
    rabbit.add_user("ann", configure="^other", write=".*", read=".*")
    with pytest.raises(BrokerMisconfigured, match=r"may not create or use 'dws\.c\.control'"):
        async with started(rabbit.url.replace("guest:guest", "ann:ann")):
            pass


@pytest.mark.anyio
async def test_documented_permissions_are_enough(rabbit: PrivateRabbit) -> None:
    rabbit.add_user("eve", configure=r"^dws\..*", write=r"^(dws\..*|amq\.default)$", read=r"^dws\..*")
    async with started(rabbit.url.replace("guest:guest", "eve:eve")) as broker:
        for history in (KEPT, NONE):
            await broker.publish(0, "t", b"x", history=history)


@pytest.mark.anyio
async def test_wrong_password_is_misconfigured(rabbit: PrivateRabbit) -> None:
    with pytest.raises(BrokerMisconfigured, match="refuses the connection") as caught:
        async with started(rabbit.url.replace("guest:guest", "guest:open-sesame")):
            pass
    assert "open-sesame" not in str(caught.value)


@pytest.mark.anyio
async def test_missing_virtual_host_is_misconfigured(rabbit: PrivateRabbit) -> None:
    with pytest.raises(BrokerMisconfigured, match="nowhere"):
        async with started(rabbit.url + "nowhere"):
            pass


@pytest.mark.anyio
async def test_unreachable_host_does_not_prevent_start(rabbit: PrivateRabbit) -> None:
    async with started(rabbit.url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1")) as broker:
        await broker.publish(0, "t", b"x", history=KEPT)


@pytest.mark.anyio
async def test_start_during_alarm_is_unavailable(rabbit: PrivateRabbit) -> None:
    await asyncio.to_thread(rabbit.raise_alarm, "memory")
    try:
        with pytest.raises(BrokerUnavailable, match="alarm"):
            async with started(rabbit.url):
                pass
    finally:
        await asyncio.to_thread(rabbit.clear_alarm, "memory")


# -- messages without history


@pytest.mark.anyio
async def test_messages_without_history_are_not_stored(rabbit: PrivateRabbit) -> None:
    async with started(rabbit.url + "?probe_s=50s&dead_s=60s") as broker, asyncio.timeout(HANG_S):
        before = await end_of(broker)
        for _ in range(10):
            await asyncio.gather(*(broker.publish(0, "t", b"x" * 1_000, history=NONE) for _ in range(200)))
        assert await end_of(broker) == before + 1, "only the probe of the question itself"
        await broker.publish(0, "t", b"x", history=KEPT)
        assert await end_of(broker) == before + 3


@pytest.mark.anyio
async def test_queue_of_node_ends_with_it(rabbit: PrivateRabbit) -> None:
    async with started(rabbit.url):
        assert sum(".node." in name for name in rabbit.queues()) == 1
    async with asyncio.timeout(HANG_S):
        while any(".node." in name for name in await asyncio.to_thread(rabbit.queues)):
            pass


# -- idle


@pytest.mark.anyio
async def test_idle_node_stays_within_promised_rate(rabbit: PrivateRabbit) -> None:
    async with started(rabbit.url) as broker:
        first = await end_of(broker)
        await asyncio.sleep(3.0)  # a rate is measured over a time
        assert await end_of(broker) - first - 1 <= 3 * broker.capabilities.idle_ops_per_s / 4
