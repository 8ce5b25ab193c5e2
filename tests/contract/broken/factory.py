"""Suites for the plugins of this folder. `test_conformance_suite.py` copies the folder and runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from dws_core.plugin import BrokerSpec
from dws_core.testing import BrokerConformance


class BrokerSuite(BrokerConformance):
    """The suite for a broker class of this folder, as if a plugin offered it."""

    kind: type[Any]

    @pytest.fixture
    def broker_url(self) -> str:
        return f"mutant://{type(self).__name__}"

    @pytest.fixture
    def hang_limit_s(self) -> float:
        return 0.3

    @pytest.fixture
    def sever(self) -> Any:
        return getattr(self.kind, "sever", None)

    @pytest.fixture
    def broker_spec(self) -> BrokerSpec:
        def load() -> type[Any]:
            return self.kind

        load.__module__ = "not_installed"
        return BrokerSpec(
            schemes=("mutant",),
            load=load,
            capabilities=getattr(self.kind, "promised", self.kind.capabilities),
            summary="For this test.",
        )


class BrokerSuiteInNoHurry(BrokerSuite):
    """The suite for a correct broker, or for a flaw that is not a hang, with a longer timeout."""

    @pytest.fixture
    def hang_limit_s(self) -> float:
        return 30.0


def found_by(test: str, suite: type[Any], text: str = "") -> Callable[[type[Any]], type[Any]]:
    """Make a suite for a flawed class. `test_conformance_suite.py` checks that the given test fails, with this text."""

    def register(flawed: type[Any]) -> type[Any]:
        name = f"Test{flawed.__name__}"
        assert hasattr(suite, test), f"{suite.__name__} has no test {test}"
        module = sys.modules[flawed.__module__]
        setattr(module, name, type(name, (suite,), {"kind": flawed, "__module__": module.__name__}))
        return flawed

    return register
