"""The table of close codes."""

from __future__ import annotations

from dws_core import CloseCode
from dws_core._wire.close_codes import may_reconnect, reason_of


def test_every_reason_fits_close_frame() -> None:
    assert all(len(code.reason.encode()) <= 123 for code in CloseCode)


def test_code_range_determines_reconnect() -> None:
    assert [may_reconnect(code) for code in (4000, 4499, 4500, 4999)] == [True, True, False, False]
    assert CloseCode.SERVICE_RESTART.reconnect
    assert not CloseCode.POLICY_VIOLATION.reconnect


def test_foreign_code_has_no_reason() -> None:
    assert reason_of(3456) == ""
    assert reason_of(4503) == "flooding"
