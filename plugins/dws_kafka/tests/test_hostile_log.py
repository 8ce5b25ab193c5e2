"""Records of other programs in a topic of Kafka."""

from __future__ import annotations

import secrets

import pytest
from aiokafka import AIOKafkaProducer
from services.kafka import PrivateKafka
from support.hostile_log import ABSURD, FOREIGN, check_hostile_log
from support.kafka_proxy import KafkaProxy

from dws_core import create_broker


@pytest.mark.anyio
@pytest.mark.parametrize("records", [FOREIGN, ABSURD], ids=["foreign", "absurd"])
async def test_hostile_records_are_gaps(
    kafka: PrivateKafka, proxy: KafkaProxy, records: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    channel = f"hostile-{secrets.token_hex(4)}"
    producer = AIOKafkaProducer(bootstrap_servers=kafka.address)
    await producer.start()

    async def inject(record: bytes) -> None:
        await producer.send_and_wait(f"dws.{channel}", record, key=b"key", partition=0, headers=[("h", record[:9])])

    try:
        await check_hostile_log(
            lambda: create_broker(kafka.url + "?partitions=1"), channel, inject, records.values(), caplog
        )
    finally:
        await producer.stop()
