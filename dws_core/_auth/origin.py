"""The origin check: which web pages may connect (RFC 6454, RFC 6455 §10.2)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dws_core._errors import ConfigurationError

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ANY: Final = "*"
_OPAQUE: Final = "null"
_EXAMPLES: Final = "write an origin, such as https://app.example.com, https://*.example.com, or * for every origin"


class Origin(NamedTuple):
    """An origin: scheme, host and port. The port is None if the scheme has no default port."""

    scheme: str
    host: str
    port: int | None


class AllowedOrigins:
    """Origins whose pages may connect, in addition to those of the node's own host.

    An entry is an origin such as `https://app.example.com`, `https://*.example.com` for all hosts below `example.com`,
    `null` for pages without an origin, or `*` for every origin. Upper case, the default port and a slash at the end make
    no difference. International names may be written in either form.

    Args:
        entries: The origins.

    Raises:
        ConfigurationError: An entry is not an origin.
    """

    def __init__(self, entries: Collection[str]) -> None:
        if isinstance(entries, str):
            raise ConfigurationError(
                f"allowed_origins={entries!r} is one string, expected a list of origins.",
                fix=f"write allowed_origins=[{entries!r}]",
            )
        given: object = entries  # an application may not be type-checked
        if not isinstance(given, Collection) or isinstance(given, bytes):
            raise ConfigurationError(
                f"allowed_origins is a value of type {type(entries).__qualname__}, expected a list of origins.",
                fix="write allowed_origins=[...], or omit it to allow only the pages of the node's own host",
            )
        self._any = _ANY in entries
        self._opaque = _OPAQUE in entries
        self._exact: set[Origin] = set()
        self._below: list[Origin] = []
        for entry in entries:
            if entry not in (_ANY, _OPAQUE):
                self._add(entry)

    def allow(self, origin: str | None, host: str | None) -> bool:
        """Return whether the origin of a handshake is allowed.

        A handshake without an `Origin` header does not come from a browser and is allowed. Any other origin must be in the
        list, or have the host and port of the `Host` header. Schemes are not compared with the `Host` header, because a
        proxy may terminate TLS.

        Args:
            origin: The `Origin` header.
            host: The `Host` header.
        """
        if origin is None or self._any:
            return True
        if origin == _OPAQUE:
            return self._opaque
        found = _parse(origin)
        if found is None:
            return False
        own = _parse(f"{found.scheme}://{host or ''}")
        return own == found or found in self._exact or any(_is_below(found, parent) for parent in self._below)

    def _add(self, entry: str) -> None:
        """Add an entry.

        Raises:
            ConfigurationError: The entry is not an origin.
        """
        text = str(entry).strip()
        below = text.replace("://*.", "://", 1)
        origin = _parse(below.removesuffix("/"))
        if origin is None or "*" in below or "," in below:
            raise ConfigurationError(f"allowed_origins has the entry {entry!r}, which is not an origin.", fix=_EXAMPLES)
        if below == text:
            self._exact.add(origin)
        else:
            self._below.append(origin)


def _is_below(origin: Origin, parent: Origin) -> bool:
    return origin.host.endswith("." + parent.host) and origin._replace(host=parent.host) == parent


def _parse(text: str) -> Origin | None:
    """Return the parts of an origin, or None if the text is not an origin."""
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("ascii" if text.isascii() else "idna").decode()
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # includes UnicodeError
        return None
    extra = parts.path or parts.query or parts.fragment or parts.username is not None
    return None if extra or not parts.scheme or not host or " " in host else Origin(parts.scheme, host, port)
