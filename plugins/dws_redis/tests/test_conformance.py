"""The Redis broker passes the broker suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dws_redis import RedisBroker
from services.redis import PrivateRedis

from dws_core.testing import BrokerConformance, BrokerFaults


class RedisFaults(BrokerFaults):
    """Faults of a Redis server."""

    def __init__(self, redis: PrivateRedis) -> None:
        self.redis = redis
        self._data: dict[Path, bytes] = {}

    def cut_tail(self) -> None:
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")

    def cut_commands(self) -> None:
        self.redis.lose_replies()

    def restart(self) -> None:
        self.redis.kill()
        self.redis.start()

    def wipe(self) -> None:
        self._replace_data({})

    def take_down(self) -> None:
        self.redis.kill()

    def bring_up(self) -> None:
        self.redis.start()

    def freeze(self) -> None:
        self.redis.freeze()

    def thaw(self) -> None:
        self.redis.thaw()

    def snapshot(self) -> None:
        self._data = {found: found.read_bytes() for found in self._files()}

    def set_back(self) -> None:
        self._replace_data(self._data)

    def _files(self) -> list[Path]:
        return [found for found in self.redis.folder.rglob("*.aof*") if found.is_file()]

    def _replace_data(self, data: dict[Path, bytes]) -> None:
        self.redis.kill()
        for found in self._files():
            found.unlink()
        for path, content in data.items():
            path.write_bytes(content)
        self.redis.start()


class TestRedisBroker(BrokerConformance):
    broker = RedisBroker
    count_operations = None  # counted in test_redis_only.py, because this suite probes more often than users do

    @pytest.fixture
    def broker_url(self, redis: PrivateRedis) -> str:
        return redis.url + "?probe_s=200ms&dead_s=1s"

    @pytest.fixture
    def unreachable_url(self) -> str:
        return "redis://user:hush@127.0.0.1:1/0"

    @pytest.fixture
    def sever(self, redis: PrivateRedis) -> Callable[[], Awaitable[None]]:
        async def cut() -> None:
            redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        return cut

    @pytest.fixture
    def fault(self, redis: PrivateRedis) -> RedisFaults:
        return RedisFaults(redis)
