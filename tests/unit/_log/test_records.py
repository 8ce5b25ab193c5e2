"""Bounds of the values that brokers and nodes exchange."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dws_core import ConfigurationError
from dws_core._log.records import History


@pytest.mark.parametrize("size", [-1, 2**31, 2**63])
def test_invalid_history_size_is_rejected(size: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"size={size}\) must be 0 to 2,147,483,647.*Fix:.*History\.none"):
        History(size=size)


@pytest.mark.parametrize("ttl_s", [0, -1.0, -math.inf, math.inf, math.nan, 315_360_001, 1e15])
def test_invalid_history_ttl_is_rejected(ttl_s: float) -> None:
    with pytest.raises(ConfigurationError, match=r"positive and at most 315,360,000 seconds.*Fix:.*History\.none"):
        History(ttl_s=ttl_s)


def test_history_bounds_are_inclusive() -> None:
    assert History(size=2**31 - 1, ttl_s=315_360_000).size == 2_147_483_647
    assert History(size=0, ttl_s=5e-324) == History(size=0, ttl_s=5e-324)
    assert History.none().size == 0


@pytest.mark.parametrize(
    "wrong", [{"size": "5"}, {"size": 1.5}, {"size": None}, {"size": True}, {"ttl_s": "5"}, {"ttl_s": None}]
)
def test_history_of_wrong_type_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"History\({next(iter(wrong))}="):
        History(**wrong)
