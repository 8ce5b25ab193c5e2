"""Positions: where in a log a message stands, as clients hold it."""

from __future__ import annotations


def format_position(partition: int, epoch: str, offset: int) -> str:
    """Write a position as clients see it: `partition:epoch:offset`, for example `3:k9x2p0aa:1042`."""
    return f"{partition}:{epoch}:{offset}"
