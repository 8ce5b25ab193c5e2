"""The servers that several integration tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.redis import PrivateRedis, find_redis


@pytest.fixture
def redis() -> Iterator[PrivateRedis]:
    """A private Redis without persistence."""
    pytest.importorskip("dws_redis", reason="needs dws-redis: pip install ./plugins/dws_redis")
    find_redis()
    server = PrivateRedis()
    try:
        server.start()
        yield server
    finally:
        server.remove()
