"""The RabbitMQ node for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.rabbitmq import PrivateRabbit


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def shared_rabbit() -> Iterator[PrivateRabbit]:
    """A RabbitMQ that all tests share, because its start takes seconds."""
    server = PrivateRabbit()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def rabbit(shared_rabbit: PrivateRabbit) -> Iterator[PrivateRabbit]:
    """The shared RabbitMQ, without streams. A test may stop, freeze or change it, and must leave it running."""
    yield shared_rabbit
    shared_rabbit.delete_queues()
