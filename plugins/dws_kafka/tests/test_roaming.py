"""Six clients move between two nodes in two processes on one Kafka. The nodes and Kafka are killed, Kafka also freezes."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from integration.test_roaming import check_with_server_faults, freeze_and_kill
from services.kafka import PrivateKafka


@pytest.mark.anyio
async def test_roaming_survives_kafka_faults() -> None:
    """Each client receives each message once and in order, without a gap."""
    kafka = PrivateKafka()
    try:
        await asyncio.to_thread(kafka.start)
        url = kafka.url + "?partitions=1&probe_s=200ms&dead_s=2s"
        await check_with_server_faults(url, partial(freeze_and_kill, kafka, 3.0))
    finally:
        kafka.remove()
