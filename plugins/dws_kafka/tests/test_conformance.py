"""The Kafka broker passes the broker suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from dws_kafka import KafkaBroker
from services.kafka import PrivateKafka
from support.kafka_proxy import KafkaProxy

from dws_core.testing import BrokerConformance, BrokerFaults


class KafkaFaults(BrokerFaults):
    """Faults of a Kafka server, and of the connections to it."""

    def __init__(self, kafka: PrivateKafka, proxy: KafkaProxy) -> None:
        self.kafka = kafka
        self.proxy = proxy

    def cut_tail(self) -> None:
        self.proxy.cut(others=False)

    def cut_commands(self) -> None:
        self.proxy.cut(following=False)

    def restart(self) -> None:
        self.kafka.kill()
        self.kafka.start()

    def wipe(self) -> None:
        self.kafka.wipe()

    def take_down(self) -> None:
        self.kafka.kill()

    def bring_up(self) -> None:
        self.kafka.start()

    def freeze(self) -> None:
        self.kafka.freeze()

    def thaw(self) -> None:
        self.kafka.thaw()

    def snapshot(self) -> None:
        self.kafka.save()

    def set_back(self) -> None:
        self.kafka.kill()
        self.kafka.restore()
        self.kafka.start()


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
