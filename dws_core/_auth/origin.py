"""The origin check: which web pages may connect (RFC 6454, RFC 6455 §10.2)."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dws_core._errors import ConfigurationError

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SOCKET_SCHEMES: Final = ("ws", "wss")
"""Schemes that no origin has. An origin is the address of the page, not that of the WebSocket."""

_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")  # RFC 1035 §2.3.4, with the underscore that browsers accept
_DOT: Final = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490 §3.1
_NOT_MAPPED: Final = re.compile("[\u00df\u03c2\u200c\u200d]")
"""Characters that browsers keep, as in IDNA 2008, and that Python replaces, as in IDNA 2003."""

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
    `null` for pages without an origin, or `*` for every origin. Upper case, the default port, a slash at the end and a dot
    after the host make no difference. International names and IPv6 addresses may be written in each of their forms.

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
        self._any = False
        self._opaque = False
        self._exact: set[Origin] = set()
        self._below: list[Origin] = []
        for entry in entries:
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
        if text in (_ANY, _OPAQUE):
            self._any |= text == _ANY
            self._opaque |= text == _OPAQUE
            return
        below = text.replace("://*.", "://", 1)
        origin = _parse(below.removesuffix("/"))
        if origin is None or origin.scheme in _SOCKET_SCHEMES:
            raise ConfigurationError(f"allowed_origins has the entry {entry!r}, which is not an origin.", fix=_EXAMPLES)
        if below == text:
            self._exact.add(origin)
        else:
            self._below.append(origin)


def _is_below(origin: Origin, parent: Origin) -> bool:
    return origin.host.endswith("." + parent.host) and origin._replace(host=parent.host) == parent


def _parse(text: str) -> Origin | None:
    """Return the parts of an origin, or None if the text is not an origin."""
    if not text.isprintable():  # `urlsplit` would remove line breaks
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
        host = _host_of(parts.hostname or "")
    except ValueError:  # includes UnicodeError
        return None
    if not parts.scheme or port == 0 or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS.get(parts.scheme))


def _host_of(text: str) -> str:
    """Return a host in the form in which browsers send it.

    Raises:
        ValueError: The text is not a host.
    """
    if ":" in text and "%" not in text:  # an origin has no zone
        return str(IPv6Address(text))
    labels = [_label_of(label) for label in _DOT.split(text.lower().removesuffix("."))]
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("not a host")
    host = ".".join(labels)
    return str(IPv4Address(host)) if labels[-1].isdecimal() else host


def _label_of(label: str) -> str:
    if label.isascii():
        return label
    if _NOT_MAPPED.search(label):
        return "xn--" + label.encode("punycode").decode()
    return label.encode("idna").decode()
