"""For the tests of plugins and applications: conformance suites and fakes. Needs the extra `testing`.

Names are imported on first use: pytest must see this package before its suites, to make their assertions speak.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dws_core.testing._authenticator import AuthenticatorConformance as AuthenticatorConformance
    from dws_core.testing._broker import BrokerConformance as BrokerConformance
    from dws_core.testing._codec import CodecConformance as CodecConformance
    from dws_core.testing._conformance import Conformance as Conformance
    from dws_core.testing._fakes import FakeWebSocket as FakeWebSocket
    from dws_core.testing._faults import BrokerFaults as BrokerFaults
    from dws_core.testing._faulty import FaultyBroker as FaultyBroker
    from dws_core.testing._matcher import TopicMatcherConformance as TopicMatcherConformance
    from dws_core.testing._services import requires_service as requires_service

__all__ = [
    "AuthenticatorConformance",
    "BrokerConformance",
    "BrokerFaults",
    "CodecConformance",
    "Conformance",
    "FakeWebSocket",
    "FaultyBroker",
    "TopicMatcherConformance",
    "requires_service",
]

_WHERE: Final = {
    "AuthenticatorConformance": "_authenticator",
    "BrokerConformance": "_broker",
    "BrokerFaults": "_faults",
    "CodecConformance": "_codec",
    "Conformance": "_conformance",
    "FakeWebSocket": "_fakes",
    "FaultyBroker": "_faulty",
    "TopicMatcherConformance": "_matcher",
    "requires_service": "_services",
}


if not TYPE_CHECKING:  # to a type checker, every misspelled name would be there

    def __getattr__(name: str) -> Any:
        if name in _WHERE:
            return getattr(importlib.import_module(f"dws_core.testing.{_WHERE[name]}"), name)
        raise AttributeError(f"module 'dws_core.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
