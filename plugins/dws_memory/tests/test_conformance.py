"""The memory broker passes the broker suite."""

from __future__ import annotations

import pytest

from dws_core.testing import BrokerConformance


class TestMemoryBroker(BrokerConformance):
    @pytest.fixture
    def broker_url(self) -> str:
        return "memory://conformance"
