"""The table of close codes."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core import CloseCode, ConfigurationError
from dws_core._wire.close_codes import (
    _FACTS,
    ABNORMAL,
    NO_STATUS,
    check_code,
    code_of_status,
    is_sendable,
    may_reconnect,
    reason_of,
)


def test_every_reason_fits_close_frame() -> None:
    assert all(len(code.reason.encode()) <= 123 for code in CloseCode)


def test_every_code_has_meaning() -> None:
    assert all(code.meaning for code in CloseCode)
    assert CloseCode.INTERNAL_ERROR.meaning == CloseCode.INTERNAL_ERROR.reason


def test_only_codes_with_reconnect_have_advice() -> None:
    assert CloseCode.SERVICE_RESTART.advice == "with jitter"
    assert not any(code.advice for code in CloseCode if not code.reconnect)


def test_reserved_codes_are_not_sent() -> None:
    reserved = {code for code in CloseCode if not code.is_sent}
    assert reserved == {4003, 4501, 4502}


def test_codes_that_must_not_be_sent_are_not_members() -> None:
    assert {NO_STATUS, ABNORMAL}.isdisjoint(CloseCode)


def test_code_range_determines_reconnect() -> None:
    assert [may_reconnect(code) for code in (4000, 4499, 4500, 4999)] == [True, True, False, False]
    assert CloseCode.SERVICE_RESTART.reconnect
    assert not CloseCode.POLICY_VIOLATION.reconnect


def test_table_agrees_with_range() -> None:
    for code in CloseCode:
        if code >= 4000:
            assert _FACTS[code].reconnect is (code < 4500), code


def test_foreign_code_has_no_reason() -> None:
    assert reason_of(3456) == ""
    assert reason_of(4503) == "flooding"


@pytest.mark.parametrize("code", [999, 1004, NO_STATUS, ABNORMAL, 1015, 1016, 2999, 5000, 0, -1, 65_536, "1000", None])
def test_code_that_may_not_be_sent_is_refused(code: Any) -> None:
    with pytest.raises(ConfigurationError, match="may not be sent"):
        check_code(code)


@pytest.mark.parametrize("code", [*CloseCode, 1002, 1007, 1010, 3000, 4999])
def test_code_that_may_be_sent_is_returned(code: int) -> None:
    assert check_code(code) == code


def test_status_maps_to_final_code_only_if_final() -> None:
    assert {code_of_status(status) for status in (400, 401, 403, 404, 410, 422)} == {1008}
    assert {code_of_status(status) for status in (408, 425, 429, 503)} == {1013}
    assert {code_of_status(status) for status in (500, 502, 504)} == {1011}


def test_only_registered_codes_are_sendable() -> None:
    unsendable = [code for code in range(1000, 5001) if not is_sendable(code)]
    assert unsendable == [1004, 1005, 1006, *range(1015, 3000), 5000]
