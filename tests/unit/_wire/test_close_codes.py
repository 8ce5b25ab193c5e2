"""The table of close codes."""

from __future__ import annotations

from dws_core import CloseCode
from dws_core._wire.close_codes import _FACTS, ABNORMAL, NO_STATUS, may_reconnect, reason_of


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
    assert reserved == {4001, 4002, 4003, 4501, 4502}


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
