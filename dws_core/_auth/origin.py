"""Which web pages may open a socket (RFC 6454, RFC 6455 §10.2)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Say whether a handshake's origin is allowed.

    No `Origin` header: not a browser, allowed. Otherwise the origin must be in `allowed` (`*`: any), or name the host
    and port of the `Host` header: the scheme is not compared, since a proxy may end TLS.

    Args:
        origin: The `Origin` header.
        host: The `Host` header.
        allowed: Origins such as `https://app.example.com`, besides the same one.
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
