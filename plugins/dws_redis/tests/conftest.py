"""The Redis servers for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.redis import PrivateRedis


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
def redis() -> Iterator[PrivateRedis]:
    """A Redis with an append-only file."""
    server = PrivateRedis(aof=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    """A private Redis without persistence, which the test may stop, freeze or change."""
    redis = PrivateRedis()
    redis.start()
    yield redis
    redis.remove()
