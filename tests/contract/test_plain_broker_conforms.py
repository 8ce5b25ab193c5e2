"""A plain broker passes the broker suite in this process, so the requirements of `BrokerInterface` are realistic."""

from __future__ import annotations

import pytest
from support.brokers import PlainBroker

from dws_core.plugin import BrokerSpec
from dws_core.testing import BrokerConformance


class TestPlainBroker(BrokerConformance):
    fault = sever = unreachable_url = None  # all nodes are in one process

    @pytest.fixture
    def broker_url(self) -> str:
        return "plain://conformance"

    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        def load() -> type[PlainBroker]:
            return PlainBroker

        load.__module__ = "not_installed"  # skips the suite's import check for installed plugins
        return BrokerSpec(
            schemes=("plain",), load=load, capabilities=PlainBroker.capabilities, summary="Nodes of one process."
        )
