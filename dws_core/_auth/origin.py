"""The origin check: which web pages may connect (RFC 6454, RFC 6455 §10.2)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Return whether the origin of a handshake is allowed.

    A handshake without an `Origin` header does not come from a browser and is allowed. Any other origin must be in
    `allowed`, or have the host and port of the `Host` header. Schemes are not compared, because a proxy may terminate
    TLS.

    Args:
        origin: The `Origin` header.
        host: The `Host` header.
        allowed: Further allowed origins, such as `https://app.example.com`. `*` allows every origin.
    """
    if origin is None or "*" in allowed or origin.lower() in {entry.lower().rstrip("/") for entry in allowed}:
        return True
    try:
        parts = urlsplit(origin)
        default = _DEFAULT_PORTS.get(parts.scheme)
        target = urlsplit(f"{parts.scheme}://{host or ''}")
        return (
            parts.hostname is not None
            and parts.hostname == target.hostname
            and (parts.port or default) == (target.port or default)
        )
    except ValueError:
        return False
