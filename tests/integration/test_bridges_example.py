"""The bridges, from real servers to a client. A message that arrives again is published once."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services.kafka import PrivateKafka
from support.apps import chat_app
from support.servers import Client, serve

from dws_core import WebSocketManager

pytest.importorskip("faststream", reason="needs FastStream: pip install 'faststream[kafka,rabbit]'")

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from support.kafka_admin import create_topic

BRIDGES = Path(__file__).parents[2] / "examples/bridges"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_example", BRIDGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


@pytest.fixture(scope="module")
def kafka() -> Iterator[PrivateKafka]:
    server = PrivateKafka()
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def produce(kafka: PrivateKafka, *orders: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.address)
    await producer.start()
    for order in orders:
        await producer.send_and_wait("orders", json.dumps({"id": order}).encode(), partition=0)
    await producer.stop()


async def rewind(kafka: PrivateKafka) -> None:
    """Let the bridge read everything again, as after a crash before it could commit."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.address, group_id="dws-bridge", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([place := TopicPartition("orders", 0)])
    await consumer.commit({place: 0})
    await consumer.stop()


async def test_kafka_bridge_publishes_each_order_once(kafka: PrivateKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    await create_topic(kafka.address, "orders", 1)
    monkeypatch.setenv("KAFKA", kafka.address)
    monkeypatch.setenv("DWS_BROKER", "memory://bridge")
    front = load("kafka_orders")
    async with serve(watching()) as server, Client.open(f"{server.url}/ws/ann") as ann:
        await ann.subscribe("orders/+")
        await produce(kafka, 1, 2)
        async with serve(front):
            assert [(await ann.receive())["data"] for _ in range(2)] == [{"id": 1}, {"id": 2}]
        await rewind(kafka)
        await produce(kafka, 3)
        async with serve(load("kafka_orders")):
            message = await ann.receive()
            assert (message["topic"], message["data"]) == ("orders/3", {"id": 3})


async def test_rabbitmq_bridge_publishes_each_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rabbitmq = pytest.importorskip(
        "services.rabbitmq", reason="needs the clients of RabbitMQ: pip install ./plugins/dws_amqp"
    )
    aio_pika = pytest.importorskip("aio_pika", reason="needs aio-pika: pip install aio-pika")
    server = rabbitmq.PrivateRabbit()
    try:
        await asyncio.to_thread(server.start)
        monkeypatch.setenv("RABBITMQ", server.url)
        monkeypatch.setenv("DWS_BROKER", "memory://bridge")
        async with (
            await aio_pika.connect(server.url) as connection,
            connection.channel() as channel,
            serve(load("rabbitmq_orders")),
            serve(watching()) as node,
            Client.open(f"{node.url}/ws/ann") as ann,
        ):
            await ann.subscribe("orders/+")
            for order in (1, 1, 2):  # RabbitMQ delivers a message again after a crash
                body = json.dumps({"id": order}).encode()
                message = aio_pika.Message(body, message_id=f"order-{order}", content_type="application/json")
                await channel.default_exchange.publish(message, "orders")
            assert [(await ann.receive())["data"] for _ in range(2)] == [{"id": 1}, {"id": 2}]
    finally:
        server.remove()


def watching() -> Any:
    """Return the application of a node of the same channel."""
    return chat_app(WebSocketManager("shop", broker_url="memory://bridge"))
