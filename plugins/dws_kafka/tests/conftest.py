"""The Kafka servers for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.kafka import PrivateKafka, free_port
from support.kafka_proxy import KafkaProxy


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def kafka() -> Iterator[PrivateKafka]:
    """A Kafka that all tests share, each with its own channels. It is behind a proxy."""
    server = PrivateKafka(advertised=free_port())
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def proxy(kafka: PrivateKafka) -> Iterator[KafkaProxy]:
    """The proxy in front of `kafka`."""
    proxy = KafkaProxy(int(kafka.address.rpartition(":")[2]), kafka.port)
    yield proxy
    proxy.close()
