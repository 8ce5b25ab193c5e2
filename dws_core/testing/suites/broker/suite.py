"""The broker suite, assembled from its parts."""

from __future__ import annotations

from dws_core.testing.suites.broker.control import BrokerControlTests
from dws_core.testing.suites.broker.fault import BrokerFaultTests
from dws_core.testing.suites.broker.history import BrokerHistoryTests
from dws_core.testing.suites.broker.lifecycle import BrokerLifecycleTests
from dws_core.testing.suites.broker.lost_connection import BrokerLostConnectionTests
from dws_core.testing.suites.broker.order import BrokerOrderTests
from dws_core.testing.suites.broker.outage import BrokerCatchUpTests, BrokerOutageTests
from dws_core.testing.suites.broker.outcome import BrokerOutcomeTests
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
    BrokerControlTests,
    BrokerRecoveryTests,
    BrokerCatchUpTests,
    BrokerFaultTests,
    BrokerOutageTests,
    BrokerOutcomeTests,
    BrokerLostConnectionTests,
):
    """Tests that every broker must pass.

    Works for a `BrokerInterface` and for a `LogBroker`. The capabilities in the plugin's record select the tests.
    Requires one fixture, `broker_url`. Optional are the fixtures `fault`, `sever`, `count_operations`,
    `unreachable_url`, `hang_limit_s` and `queue_limit_bytes`. If the URL depends on other fixtures, the class attribute
    `broker` selects the tests.

    Example:
        ```python
        @requires_service("nats://127.0.0.1:4222")
        class TestNatsBroker(BrokerConformance):
            @pytest.fixture
            def broker_url(self) -> str:
                return "nats://127.0.0.1:4222"
        ```
    """
