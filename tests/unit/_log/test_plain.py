"""A broker without a log: its options, and the two ways to receive from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dws_core import BrokerURL, InvalidBrokerURL
from dws_core._log.plain import BrokerInterface, Delivery


class _Broker(BrokerInterface):
    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def subscribe(self, channel: str) -> None: ...

    async def unsubscribe(self, channel: str) -> None: ...

    async def publish(self, channel: str, message: Any) -> None: ...

    async def deliveries(self) -> AsyncIterator[Delivery]:
        yield Delivery(channel="c", payload=b'{"topic": "t", "data": 1}')


def test_broker_without_options_rejects_every_option() -> None:
    assert isinstance(_Broker.from_url(BrokerURL.parse("x://host")), _Broker)
    with pytest.raises(InvalidBrokerURL, match=r"unknown option 'size'.*none"):
        _Broker.from_url(BrokerURL.parse("x://host?size=1"))


async def test_get_message_reads_deliveries_until_end() -> None:
    broker = _Broker()
    message = await broker.get_message()
    assert message is not None
    assert (message.topic, message.data) == ("t", 1)

    class _Ended(_Broker):
        async def deliveries(self) -> AsyncIterator[Delivery]:
            return
            yield

    assert await _Ended().get_message() is None


async def test_get_message_override_provides_no_deliveries() -> None:
    class _Original(_Broker):
        deliveries = BrokerInterface.deliveries

        async def get_message(self, **kwargs: Any) -> None: ...

    with pytest.raises(NotImplementedError, match="get_message"):
        await anext(_Original().deliveries())


def test_broker_without_receive_method_is_rejected() -> None:
    with pytest.raises(TypeError, match="overrides neither"):
        type("Deaf", (_Broker,), {"deliveries": BrokerInterface.deliveries})
