"""Positions as clients see them."""

from __future__ import annotations

from dws_core._wire.cursor import format_position


def test_a_position_names_partition_epoch_and_offset() -> None:
    assert format_position(3, "k9x2p0aa", 1042) == "3:k9x2p0aa:1042"
