"""Finding the bearer token of a handshake."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable
from typing import Final

BEARER_PREFIX: Final = "dws.bearer."
"""Prefix of the subprotocol entry that carries a token as base64url, for browsers, which cannot set headers."""


def bearer_from_header(value: str | None) -> str | None:
    """Return the bearer token of an `Authorization` header (RFC 6750 §2.1), or None if it has none."""
    scheme, _, token = (value or "").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def split_bearer(offered: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    """Split offered subprotocols into the token and the other subprotocols.

    A `dws.bearer.` entry that is not base64url of UTF-8 is ignored.
    """
    token: str | None = None
    others: list[str] = []
    for entry in offered:
        if entry.startswith(BEARER_PREFIX):
            token = token or _decode(entry[len(BEARER_PREFIX) :])
        else:
            others.append(entry)
    return token, tuple(others)


def split_secrets(offered: Iterable[str], prefixes: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Split offered subprotocols into secrets by their prefix and the other subprotocols.

    If several prefixes fit, the longest counts. If several entries have the same prefix, the first counts.
    """
    secrets: dict[str, str] = {}
    others: list[str] = []
    for entry in offered:
        fitting = [prefix for prefix in prefixes if entry.startswith(prefix)]
        if fitting:
            prefix = max(fitting, key=len)
            secrets.setdefault(prefix, entry[len(prefix) :])
        else:
            others.append(entry)
    return secrets, tuple(others)


def _decode(text: str) -> str | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode() or None
    except (binascii.Error, ValueError):
        return None
