from __future__ import annotations

import pytest

from dws_core._errors import BrokerMisconfigured, BrokerUnavailable, LayoutMismatch
from dws_core._log.stream.io.failures import closed, is_expected, leaf, reason_of, startup_error
from dws_core._log.stream.wire import WireLost, WireUnusable


def test_leaf_is_the_first_error_in_nested_groups() -> None:
    error = WireLost("cut")
    assert leaf(error) is error
    assert leaf(ExceptionGroup("a", [ExceptionGroup("b", [error, ValueError()])])) is error


@pytest.mark.parametrize(
    ("error", "reason", "expected"),
    [
        (WireLost("cut"), "cut", True),
        (TimeoutError(), "the broker does not answer", True),
        (LayoutMismatch("2 partitions.", fix="use 2"), "LayoutMismatch(", True),
        (ValueError("a defect"), "ValueError('a defect')", False),
    ],
)
def test_reason_is_a_few_words(error: Exception, reason: str, expected: bool) -> None:
    assert reason_of(error).startswith(reason)
    assert is_expected(error) is expected


def test_startup_error_names_place_and_reason() -> None:
    cause = WireLost("connection refused")
    error = startup_error("broker x://host", cause)
    assert isinstance(error, BrokerUnavailable)
    assert "broker x://host is unavailable: connection refused." in str(error)
    assert error.__cause__ is cause


def test_unusable_wire_is_a_wrong_configuration() -> None:
    error = startup_error("broker x://host", WireUnusable("no permission"))
    assert isinstance(error, BrokerMisconfigured)
    assert "no permission" in str(error)


def test_broker_errors_pass_unchanged() -> None:
    error = LayoutMismatch("2 partitions.", fix="use 2")
    assert startup_error("broker x://host", error) is error


def test_closed_names_the_remedy() -> None:
    assert "Fix: call start() first" in str(closed())
