"""Six clients move between two nodes in two processes on one RabbitMQ. Everything is killed, RabbitMQ also freezes."""

from __future__ import annotations

import pytest
from services.rabbitmq import PrivateRabbit
from support.killed_nodes import check_with_frozen_and_killed_server


@pytest.mark.anyio
async def test_roaming_survives_rabbitmq_faults() -> None:
    """Each client receives each message once and in order, without a gap."""
    await check_with_frozen_and_killed_server(PrivateRabbit(), down_s=0.0)  # a start takes longer than 3 seconds
