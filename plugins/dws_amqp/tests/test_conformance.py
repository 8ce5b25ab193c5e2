"""The RabbitMQ broker passes the broker suite."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from dws_amqp import AmqpBroker
from services.rabbitmq import PrivateRabbit

from dws_core.testing import BrokerConformance, BrokerFaults

SETTLED_S = 2.0
"""RabbitMQ 3.10 loses streams that it has created within about a second before it is killed."""


class RabbitFaults(BrokerFaults):
    """Faults of a RabbitMQ server.

    A copy of the data folder of a server that has just created its streams often lacks them, so `snapshot` and `set_back`
    are left out. `test_faults.py` sets back a server that has run for longer.
    """

    def __init__(self, rabbit: PrivateRabbit) -> None:
        self.rabbit = rabbit

    def cut_tail(self) -> None:
        self.rabbit.close_connections("reading")

    def cut_commands(self) -> None:
        self.rabbit.kill_connections("publishing")

    def restart(self) -> None:
        self.rabbit.kill()
        self.rabbit.start()

    def wipe(self) -> None:
        self.rabbit.kill()
        self.rabbit.wipe()
        self.rabbit.start()

    def take_down(self) -> None:
        time.sleep(SETTLED_S)
        self.rabbit.kill()

    def bring_up(self) -> None:
        self.rabbit.start()

    def freeze(self) -> None:
        self.rabbit.freeze()

    def thaw(self) -> None:
        self.rabbit.thaw()


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
