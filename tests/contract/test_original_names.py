"""Names of fastapi-distributed-websocket, imported from `dws_core` by name and by star."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

import dws_core
from dws_core import BrokerInterface, InMemoryBroker, PluginNotFound

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


@pytest.mark.skipif(find_spec("dws_redis") is not None, reason="dws-redis is installed here")
def test_missing_plugin_names_package_to_install() -> None:
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
