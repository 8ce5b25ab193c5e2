"""The memory broker passes the broker suite."""

from __future__ import annotations

import pytest

from dws_core.testing import BrokerConformance


class TestMemoryBroker(BrokerConformance):
    fault = sever = count_operations = unreachable_url = None  # all nodes are in one process

    @pytest.fixture
    def broker_url(self) -> str:
        return "memory://conformance"
