"""The suite of brokers passes for a plain one, in this process: what a `BrokerInterface` must do can be done."""

from __future__ import annotations

import pytest
from support.brokers import PlainBroker

from dws_core.plugin import BrokerSpec
from dws_core.testing import BrokerConformance


class TestPlainBroker(BrokerConformance):
    @pytest.fixture
    def broker_url(self) -> str:
        return "plain://conformance"

    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        def load() -> type[PlainBroker]:
            return PlainBroker

        load.__module__ = "not_installed"  # what the suite asks of an installed plugin's imports does not apply
        return BrokerSpec(
            schemes=("plain",), load=load, capabilities=PlainBroker.capabilities, summary="Nodes of one process."
        )
