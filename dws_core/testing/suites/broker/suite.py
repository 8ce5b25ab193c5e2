"""The broker suite, assembled from its parts."""

from __future__ import annotations

from dws_core.testing.suites.broker.fault import BrokerFaultTests
from dws_core.testing.suites.broker.history import BrokerHistoryTests
from dws_core.testing.suites.broker.lifecycle import BrokerLifecycleTests
from dws_core.testing.suites.broker.lost_connection import BrokerLostConnectionTests
from dws_core.testing.suites.broker.order import BrokerOrderTests
from dws_core.testing.suites.broker.payload import BrokerPayloadTests
from dws_core.testing.suites.broker.publish import BrokerPublishTests
from dws_core.testing.suites.broker.record import BrokerRecordTests
from dws_core.testing.suites.broker.recovery import BrokerRecoveryTests
from dws_core.testing.suites.broker.routing import BrokerRoutingTests


class BrokerConformance(
    BrokerRecordTests,
    BrokerLifecycleTests,
    BrokerRoutingTests,
    BrokerPayloadTests,
    BrokerOrderTests,
    BrokerPublishTests,
    BrokerHistoryTests,
    BrokerRecoveryTests,
    BrokerFaultTests,
    BrokerLostConnectionTests,
):
    """Tests that every broker must pass.

    Works for a `BrokerInterface` and for a `LogBroker`. The capabilities in the plugin's record select the tests.
    Requires one fixture, `broker_url`. Optional are the fixtures `fault`, `sever`, `count_operations`,
    `unreachable_url` and `hang_limit_s`, and the class attribute `broker`, which selects the tests if the URL depends
    on other fixtures.

    Example:
        ```python
        @requires_service("nats://127.0.0.1:4222")
        class TestNatsBroker(BrokerConformance):
            @pytest.fixture
            def broker_url(self) -> str:
                return "nats://127.0.0.1:4222"
        ```
    """
