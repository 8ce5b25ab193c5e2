"""The RabbitMQ broker passes the broker suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from dws_amqp import AmqpBroker
from services.rabbitmq import PrivateRabbit

from dws_core.testing import BrokerConformance, BrokerFaults


class RabbitFaults(BrokerFaults):
    """Faults of a RabbitMQ server. They run in threads, so that the nodes notice them while they happen."""

    def __init__(self, rabbit: PrivateRabbit) -> None:
        self.rabbit = rabbit

    async def cut_tail(self) -> None:
        await asyncio.to_thread(self.rabbit.close_connections, "reading")

    async def cut_commands(self) -> None:
        await asyncio.to_thread(self.rabbit.kill_connections, "publishing")

    async def restart(self) -> None:
        await asyncio.to_thread(self._restart)

    def _restart(self) -> None:
        self.rabbit.kill()
        self.rabbit.start()

    async def wipe(self) -> None:
        await asyncio.to_thread(self._wipe)

    def _wipe(self) -> None:
        self.rabbit.kill()
        self.rabbit.wipe()
        self.rabbit.start()

    async def take_down(self) -> None:
        await asyncio.to_thread(self.rabbit.kill)

    async def bring_up(self) -> None:
        await asyncio.to_thread(self.rabbit.start)

    async def freeze(self) -> None:
        await asyncio.to_thread(self.rabbit.freeze)

    async def thaw(self) -> None:
        await asyncio.to_thread(self.rabbit.thaw)


class TestAmqpBroker(BrokerConformance):
    broker = AmqpBroker
    count_operations = None  # counted in test_amqp_only.py, because this suite probes more often than users do

    @pytest.fixture
    def broker_url(self, rabbit: PrivateRabbit) -> str:
        return rabbit.url + "?partitions=2&probe_s=200ms&dead_s=3s"

    @pytest.fixture
    def unreachable_url(self) -> str:
        return "amqp://user:hush@127.0.0.1:1/"

    @pytest.fixture
    def sever(self, rabbit: PrivateRabbit) -> Callable[[], Awaitable[None]]:
        async def cut() -> None:
            await asyncio.to_thread(rabbit.close_connections)

        return cut

    @pytest.fixture
    def fault(self, rabbit: PrivateRabbit) -> RabbitFaults:
        return RabbitFaults(rabbit)
