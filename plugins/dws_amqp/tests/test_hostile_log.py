"""Records of other programs in a stream of RabbitMQ, and messages of other programs on the exchange."""

from __future__ import annotations

import aiormq
import pytest
from aiormq import spec
from dws_amqp._streams import Names
from services.rabbitmq import PrivateRabbit
from support.hostile_log import ABSURD, FOREIGN, check_hostile_log

from dws_core import create_broker
from dws_core.plugin import Layout

NAMES = Names("dws", Layout(channel="hostile"))


@pytest.mark.anyio
@pytest.mark.parametrize("records", [FOREIGN, ABSURD], ids=["foreign", "absurd"])
@pytest.mark.parametrize("headers", [{}, {"x-stream-offset": "many"}, {"x-stream-offset": 2**62}], ids=str)
async def test_hostile_records_are_gaps(
    rabbit: PrivateRabbit, records: dict[str, bytes], headers: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    connection = await aiormq.connect(rabbit.url)
    channel = await connection.channel(publisher_confirms=True)

    async def inject(record: bytes) -> None:
        properties = spec.Basic.Properties(headers=headers)
        for exchange, key in (("", NAMES.streams[0]), (NAMES.control, "")):
            await channel.basic_publish(record, exchange=exchange, routing_key=key, properties=properties)

    try:
        await check_hostile_log(
            lambda: create_broker(rabbit.url + "?partitions=1"), "hostile", inject, records.values(), caplog
        )
    finally:
        await connection.close()
