"""Names of fastapi-distributed-websocket: importable from `dws_core`, one by one and by star."""

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
def test_a_name_of_the_original_is_importable(name: str) -> None:
    assert getattr(dws_core, name) is not None
    assert name in dir(dws_core)


def test_a_star_import_needs_no_plugin() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "from dws_core import *; WebSocketManager"], check=True)


@pytest.mark.skipif(find_spec("dws_redis") is not None, reason="dws-redis is installed here")
def test_a_broker_whose_plugin_is_missing_says_what_to_install() -> None:
    with pytest.raises(PluginNotFound, match="pip install dws-redis"):
        from dws_core import RedisBroker  # noqa: F401 -- importing is what is tested


def test_deprecated_names_still_work_and_say_what_to_use() -> None:
    with pytest.warns(DeprecationWarning, match=r"is_valid_broker is deprecated and will be removed in 0\.4\.0.*isinstance"):
        is_valid_broker = dws_core.is_valid_broker
    assert is_valid_broker(InMemoryBroker())
    assert not is_valid_broker(object())
    with pytest.warns(DeprecationWarning, match="BrokerT is deprecated"):
        assert dws_core.BrokerT.__bound__ is BrokerInterface


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        dws_core.Nonsense  # noqa: B018 -- looking it up is what is tested
