"""Six clients move between two nodes in two processes on one Kafka. The nodes and Kafka are killed, Kafka also freezes."""

from __future__ import annotations

import pytest
from services.kafka import PrivateKafka
from support.killed_nodes import check_with_frozen_and_killed_server


@pytest.mark.anyio
async def test_roaming_survives_kafka_faults() -> None:
    """Each client receives each message once and in order, without a gap."""
    await check_with_frozen_and_killed_server(PrivateKafka(), down_s=3.0)
