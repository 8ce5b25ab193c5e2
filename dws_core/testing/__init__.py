"""Tools for the tests of plugins and applications: conformance suites, servers, clients and faults.

Requires the extra `testing`. Names are imported on first use, for two reasons. pytest must see this package before its
suites, so that failing assertions show their values. Programs that only use a client do not need pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from dws_core import ConfigurationError as _ConfigurationError

if TYPE_CHECKING:
    from dws_core.testing.apps.app_client import AppClient as AppClient
    from dws_core.testing.apps.fake_websocket import FakeWebSocket as FakeWebSocket
    from dws_core.testing.apps.server import RunningNode as RunningNode
    from dws_core.testing.apps.server import Server as Server
    from dws_core.testing.apps.server import serve as serve
    from dws_core.testing.apps.server import serve_nodes as serve_nodes
    from dws_core.testing.apps.services import requires_service as requires_service
    from dws_core.testing.faults.broker_faults import BrokerFaults as BrokerFaults
    from dws_core.testing.faults.faulty_broker import FaultyBroker as FaultyBroker
    from dws_core.testing.suites.authenticator import AuthenticatorConformance as AuthenticatorConformance
    from dws_core.testing.suites.broker.suite import BrokerConformance as BrokerConformance
    from dws_core.testing.suites.codec import CodecConformance as CodecConformance
    from dws_core.testing.suites.conformance import Conformance as Conformance
    from dws_core.testing.suites.mqtt_matcher import MQTTMatcherConformance as MQTTMatcherConformance
    from dws_core.testing.suites.topic_matcher import TopicMatcherConformance as TopicMatcherConformance

__all__ = [
    "AppClient",
    "AuthenticatorConformance",
    "BrokerConformance",
    "BrokerFaults",
    "CodecConformance",
    "Conformance",
    "FakeWebSocket",
    "FaultyBroker",
    "MQTTMatcherConformance",
    "RunningNode",
    "Server",
    "TopicMatcherConformance",
    "requires_service",
    "serve",
    "serve_nodes",
]

_MODULES: Final = {
    "AppClient": "apps.app_client",
    "AuthenticatorConformance": "suites.authenticator",
    "BrokerConformance": "suites.broker.suite",
    "BrokerFaults": "faults.broker_faults",
    "CodecConformance": "suites.codec",
    "Conformance": "suites.conformance",
    "FakeWebSocket": "apps.fake_websocket",
    "FaultyBroker": "faults.faulty_broker",
    "MQTTMatcherConformance": "suites.mqtt_matcher",
    "RunningNode": "apps.server",
    "Server": "apps.server",
    "TopicMatcherConformance": "suites.topic_matcher",
    "requires_service": "apps.services",
    "serve": "apps.server",
    "serve_nodes": "apps.server",
}


def _load(name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"dws_core.testing.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dws_core"):
            raise
        raise _ConfigurationError(
            f"dws_core.testing.{name} needs the package {error.name!r}, which is not installed.",
            fix="install dws-core with its extra `testing`",
        ) from error


if not TYPE_CHECKING:  # otherwise type checkers would accept every misspelled name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return _load(name)
        raise AttributeError(f"module 'dws_core.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
