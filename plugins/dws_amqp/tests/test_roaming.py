"""Six clients move between two nodes in two processes on one RabbitMQ. Everything is killed, RabbitMQ also freezes."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from integration.test_roaming import check_with_server_faults, freeze_and_kill
from services.rabbitmq import PrivateRabbit


@pytest.mark.anyio
async def test_roaming_survives_rabbitmq_faults() -> None:
    """Each client receives each message once and in order, without a gap."""
    rabbit = PrivateRabbit()
    try:
        await asyncio.to_thread(rabbit.start)
        url = rabbit.url + "?partitions=1&probe_s=200ms&dead_s=2s"
        # A start takes longer than 3 seconds.
        await check_with_server_faults(url, partial(freeze_and_kill, rabbit, 0.0))
    finally:
        rabbit.remove()
