"""Names of fastapi-distributed-websocket, imported from `dws_core` by name and by star."""

from __future__ import annotations

import subprocess
import sys

import pytest
from dws_memory import InMemoryBroker

import dws_core
from dws_core import BrokerInterface, BrokerURL, InvalidBrokerURL, PluginNotFound, WebSocketManager

NAMES = [
    "Connection", "Message", "WebSocketManager", "WebSocketProxy", "WebSocketOAuth2PasswordBearer", "BrokerInterface",
    "InMemoryBroker", "create_broker", "matches", "subscribe", "unsubscribe", "handle_subscription_message",
    "WebSocketException", "InvalidSubscription", "InvalidSubscriptionMessage", "handle", "ahandle",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_original_name_is_importable(name: str) -> None:
    assert getattr(dws_core, name) is not None
    assert name in dir(dws_core)


def test_star_import_needs_no_plugin() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "from dws_core import *; WebSocketManager"], check=True)


def test_missing_plugin_names_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dws_redis", None)
    with pytest.raises(PluginNotFound, match=r"install .*dws.redis"):
        from dws_core import RedisBroker  # noqa: F401 -- the import is under test


def test_deprecated_names_work_and_name_replacement() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"is_valid_broker is deprecated and will be removed in 0\.4\.0.*isinstance"
    ):
        is_valid_broker = dws_core.is_valid_broker
    assert is_valid_broker(InMemoryBroker())
    assert not is_valid_broker(object())
    with pytest.warns(DeprecationWarning, match="BrokerT is deprecated"):
        assert dws_core.BrokerT.__bound__ is BrokerInterface


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        dws_core.Nonsense  # noqa: B018 -- the lookup is under test


def test_memory_broker_refuses_a_url_as_name() -> None:
    with pytest.raises(InvalidBrokerURL, match="needs the name of a log, not a URL"):
        InMemoryBroker("memory://lobby")


def test_redis_broker_is_built_from_its_url() -> None:
    redis = pytest.importorskip("dws_redis", reason="needs dws-redis: pip install ./plugins/dws_redis")
    broker = redis.RedisBroker("redis://:secret@host/1")
    assert broker.capabilities == redis.RedisBroker.from_url(BrokerURL.parse("redis://host/1")).capabilities
    assert "redis://:***@host/1" in repr(broker)
    assert WebSocketManager("chat", broker=broker).broker is broker
    with pytest.raises(InvalidBrokerURL, match="unknown option 'nope'"):
        redis.RedisBroker("redis://host?nope=1")
