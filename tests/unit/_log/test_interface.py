"""What brokers and the core hand to each other."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dws_core import BrokerURL, ConfigurationError, InvalidBrokerURL
from dws_core._log.interface import BrokerInterface, Delivery, History


class _Broker(BrokerInterface):
    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def subscribe(self, channel: str) -> None: ...

    async def unsubscribe(self, channel: str) -> None: ...

    async def publish(self, channel: str, message: Any) -> None: ...

    async def deliveries(self) -> AsyncIterator[Delivery]:
        yield Delivery(channel="c", payload=b'{"topic": "t", "data": 1}')


def test_a_broker_without_options_refuses_every_option() -> None:
    assert isinstance(_Broker.from_url(BrokerURL.parse("x://host")), _Broker)
    with pytest.raises(InvalidBrokerURL, match=r"unknown option 'size'.*none"):
        _Broker.from_url(BrokerURL.parse("x://host?size=1"))


async def test_deliveries_can_be_read_as_messages_until_they_end() -> None:
    broker = _Broker()
    message = await broker.get_message()
    assert message is not None
    assert (message.topic, message.data) == ("t", 1)

    class _Ended(_Broker):
        async def deliveries(self) -> AsyncIterator[Delivery]:
            return
            yield

    assert await _Ended().get_message() is None


async def test_a_broker_that_overrides_get_message_has_no_deliveries() -> None:
    class _Original(_Broker):
        deliveries = BrokerInterface.deliveries

        async def get_message(self, **kwargs: Any) -> None: ...

    with pytest.raises(NotImplementedError, match="get_message"):
        await anext(_Original().deliveries())


def test_a_broker_that_can_receive_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="overrides neither"):
        type("Deaf", (_Broker,), {"deliveries": BrokerInterface.deliveries})


@pytest.mark.parametrize("size", [-1, 2**31, 2**63])
def test_a_history_of_a_size_that_no_broker_can_keep_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"size={size}\) must be 0 to 2,147,483,647.*Fix:.*History\.none"):
        History(size=size)


@pytest.mark.parametrize("ttl_s", [0, -1.0, -math.inf, math.inf, math.nan, 315_360_001, 1e15])
def test_a_history_of_a_time_that_no_broker_can_keep_is_refused(ttl_s: float) -> None:
    with pytest.raises(ConfigurationError, match=r"positive and at most 315,360,000 seconds.*Fix:.*History\.none"):
        History(ttl_s=ttl_s)


def test_a_history_may_be_as_large_and_as_long_as_the_bounds_and_as_small() -> None:
    assert History(size=2**31 - 1, ttl_s=315_360_000).size == 2_147_483_647
    assert History(size=0, ttl_s=5e-324) == History(size=0, ttl_s=5e-324)
    assert History.none().size == 0
