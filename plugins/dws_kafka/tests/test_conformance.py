"""The Kafka broker passes the broker suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from dws_kafka import KafkaBroker
from services.kafka import PrivateKafka
from support.kafka_proxy import KafkaProxy

from dws_core.testing import BrokerConformance, BrokerFaults


class KafkaFaults(BrokerFaults):
    """Faults of a Kafka. They run in threads, so that the nodes continue in the meantime."""

    def __init__(self, kafka: PrivateKafka, proxy: KafkaProxy) -> None:
        self.kafka = kafka
        self.proxy = proxy

    async def cut_tail(self) -> None:
        self.proxy.cut(others=False)

    async def cut_commands(self) -> None:
        self.proxy.cut(following=False)

    async def restart(self) -> None:
        await self.take_down()
        await self.bring_up()

    async def wipe(self) -> None:
        await asyncio.to_thread(self.kafka.wipe)

    async def take_down(self) -> None:
        await asyncio.to_thread(self.kafka.kill)

    async def bring_up(self) -> None:
        await asyncio.to_thread(self.kafka.start)

    async def freeze(self) -> None:
        await asyncio.to_thread(self.kafka.freeze)

    async def thaw(self) -> None:
        await asyncio.to_thread(self.kafka.thaw)


class TestKafkaBroker(BrokerConformance):
    broker = KafkaBroker
    count_operations = None  # counted in test_kafka_only.py, because this suite probes more often than users do

    @pytest.fixture
    def broker_url(self, kafka: PrivateKafka, proxy: KafkaProxy) -> str:
        return kafka.url + "?partitions=2&probe_s=200ms&dead_s=2s"

    @pytest.fixture
    def unreachable_url(self) -> str:
        return "kafka://user:hush@127.0.0.1:1"

    @pytest.fixture
    def sever(self, proxy: KafkaProxy) -> Callable[[], Awaitable[None]]:
        async def cut() -> None:
            proxy.cut()

        return cut

    @pytest.fixture
    def fault(self, kafka: PrivateKafka, proxy: KafkaProxy) -> KafkaFaults:
        return KafkaFaults(kafka, proxy)
