"""The Kafka servers for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.kafka_proxy import KafkaProxy, ProxiedKafka


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def kafka() -> Iterator[ProxiedKafka]:
    """A Kafka that all tests share, each with its own channels. It is behind a proxy."""
    server = ProxiedKafka()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def proxy(kafka: ProxiedKafka) -> KafkaProxy:
    """The proxy in front of `kafka`."""
    return kafka.proxy
