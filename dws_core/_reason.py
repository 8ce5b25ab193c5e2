"""The reason of a close frame."""

from __future__ import annotations

from typing import Final

_MAX_BYTES: Final = 123  # RFC 6455 §5.5: a control frame has 125 bytes, and the code takes two


def shorten_reason(reason: str) -> str:
    """Return the beginning of a reason that fits into a close frame: at most 123 bytes of UTF-8 (RFC 6455 §5.5)."""
    return reason.encode("utf-8", "replace")[:_MAX_BYTES].decode("utf-8", "ignore")
