"""Servers without streams, and of other versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from dws_amqp import AmqpBroker
from dws_amqp._server import Server
from services.rabbitmq import PrivateRabbit
from support.broker_load import Load, messages, two_nodes, wait_for_end
from support.timeouts import HANG_S

from dws_core import WebSocketManager
from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable, GapReason, History, Layout, WireUnusable
from dws_core.testing import FakeWebSocket

LAYOUT = Layout(channel="live", partitions=2)


@pytest.fixture(scope="module")
def module_rabbit() -> Iterator[PrivateRabbit]:
    server = PrivateRabbit(feature_flags="quorum_queue,implicit_default_bindings,virtual_host_metadata")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def without_streams(module_rabbit: PrivateRabbit) -> Iterator[PrivateRabbit]:
    """A RabbitMQ with the feature flag `stream_queue` disabled."""
    yield module_rabbit
    module_rabbit.delete_queues()


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of dws in the log."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("dws")]


# -- versions


@pytest.mark.parametrize(
    ("properties", "version", "has_streams"),
    [
        ({"product": "RabbitMQ", "version": "3.10.8"}, (3, 10), True),
        ({"product": "RabbitMQ", "version": "3.9.0"}, (3, 9), True),
        ({"product": "RabbitMQ", "version": "3.8.34"}, (3, 8), False),
        ({"product": "RabbitMQ", "version": "4.1.0-beta.2"}, (4, 1), True),
        ({"product": "Another", "version": "1.2.3"}, None, True),
        ({"product": "RabbitMQ", "version": "unknown"}, None, True),
        ({}, None, True),
    ],
)
def test_version_decides_about_streams(properties: dict[str, str], version: Any, has_streams: bool) -> None:
    server = Server.read(properties)
    assert (server.version, server.has_streams) == (version, has_streams)


def test_version_that_is_too_old_is_named() -> None:
    with pytest.raises(WireUnusable, match=r"RabbitMQ 3\.7\.28 is too old: 3\.8 is required, and 3\.9 for history"):
        _ = Server.read({"product": "RabbitMQ", "version": "3.7.28"}).has_streams


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("version", "text", "recovers"),
    [
        ("3.8.9", "RabbitMQ 3.8.9 has no streams, so messages are delivered live", False),
        ("4.1.0", "RabbitMQ 4.1.0 is newer than all versions with which this plugin was tested", True),
    ],
)
async def test_other_version_is_logged(
    rabbit: PrivateRabbit, caplog: pytest.LogCaptureFixture, version: str, text: str, recovers: bool
) -> None:
    rabbit.announce_version(version)
    try:
        async with two_nodes(rabbit.url, LAYOUT) as (sender, _):
            assert sender.broker.capabilities.recovery is recovers
    finally:
        rabbit.eval("application:set_env(rabbit, server_properties, [])")
    found = texts(caplog)
    assert len(found) == 2, "one for each node"
    assert all(text in line for line in found)


@pytest.mark.anyio
async def test_too_old_server_is_refused(rabbit: PrivateRabbit) -> None:
    rabbit.announce_version("3.7.28")
    try:
        with pytest.raises(BrokerMisconfigured, match=r"RabbitMQ 3\.7\.28 is too old"):
            async with two_nodes(rabbit.url, LAYOUT):
                pass
    finally:
        rabbit.eval("application:set_env(rabbit, server_properties, [])")


# -- no streams


@pytest.mark.anyio
async def test_live_messages_need_no_streams(without_streams: PrivateRabbit, caplog: pytest.LogCaptureFixture) -> None:
    async with two_nodes(without_streams.url, LAYOUT) as (sender, listener):
        receipts = [await sender.broker.publish(n % 2, "t", b"%d" % n, history=History()) for n in range(20)]
        assert {receipt.offset for receipt in receipts} == {None}
        await listener.until(lambda: sum(map(len, listener.received.values())) == 20)
        for node in (sender, listener):
            assert node.received == {p: [(None, b"%d" % n) for n in range(p, 20, 2)] for p in (0, 1)}
            assert not node.broker.capabilities.recovery
    assert AmqpBroker.capabilities.recovery
    found = texts(caplog)
    assert len(found) == 2, "one for each node"
    assert all("the streams of RabbitMQ 3." in line and "enable_feature_flag stream_queue" in line for line in found)


@pytest.mark.anyio
async def test_lost_connection_without_streams_is_a_gap(without_streams: PrivateRabbit) -> None:
    async with two_nodes(without_streams.url + "?probe_s=200ms&dead_s=2s", LAYOUT) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            for _ in range(3):
                await asyncio.to_thread(without_streams.close_connections)
                await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
    for node in (sender, listener):
        assert set(node.losses) == {GapReason.INTERRUPTED}
        for partition in (0, 1):
            received = messages(node, partition)
            assert received == sorted(set(received), key=lambda payload: int(payload.rpartition(b"-")[2]))


@pytest.mark.anyio
async def test_client_is_told_that_it_cannot_resume(without_streams: PrivateRabbit) -> None:
    manager = WebSocketManager("live", broker_url=without_streams.url, history={"#": History()})
    async with asyncio.timeout(HANG_S), manager, manager.connect(socket := FakeWebSocket(), "ann") as ann:
        cursor = "0:" + "0" * 16 + ":0"
        socket.client_sends_json({"type": "connect", "data": {"filters": ["t"], "cursor": cursor}, "id": 1})
        await manager.receive(ann, await anext(aiter(ann)))
        connected = await socket.next_json()
        assert (connected["recovered"], connected["cursor"]) == (False, "")
        assert (await socket.next_json())["reason"] == "unsupported"
        await manager.publish("t", "hello")
        assert (await socket.next_json())["data"] == "hello"
        with pytest.raises(BrokerUnavailable, match="keeps no history"):
            await manager.history("t")


@pytest.mark.anyio
async def test_streams_that_are_enabled_are_used_by_the_next_start(
    without_streams: PrivateRabbit, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test, because a feature flag cannot be disabled again."""
    async with two_nodes(without_streams.url, LAYOUT) as (sender, _):
        without_streams.eval("rabbit_feature_flags:enable(stream_queue)")
        await asyncio.to_thread(without_streams.close_connections)
        await sender.until(lambda: sender.states[-2:] == ["degraded", "live"])
        assert (await sender.broker.publish(0, "t", b"x", history=History())).offset is None
    caplog.set_level(logging.WARNING)
    async with two_nodes(without_streams.url, LAYOUT) as (sender, _):
        assert sender.broker.capabilities.recovery
        assert (await sender.broker.publish(0, "t", b"x", history=History())).offset is not None
