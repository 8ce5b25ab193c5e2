"""Checks of a proxy's settings, made before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from dws_core._errors import ConfigurationError

if TYPE_CHECKING:
    from ssl import SSLContext

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2: header names, subprotocol names
_NOT_IN_URL: Final = re.compile(r"[\x00-\x20\x7f]")  # these would end the request line early
_NOT_IN_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")  # RFC 9110 §5.5: a line break adds a header
# RFC 6455 §4.1, RFC 9110 §7.6.1: these headers describe one hop, and each hop sets its own.
_HOP_HEADERS: Final = frozenset(
    [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)


def masked(endpoint: str) -> str:
    """Return a URL for a log line, without the parts that may be secret: user, password and query."""
    return re.sub(r"//[^/]*@", "//***@", re.split(r"[?#]", endpoint, maxsplit=1)[0])


def parsed_endpoint(endpoint: str, *, ssl: SSLContext | None) -> WebSocketURI:
    """Parse the upstream's URL.

    Raises:
        ConfigurationError: The URL is invalid. The message does not contain the URL's secrets.
    """
    try:
        if _NOT_IN_URL.search(endpoint):
            raise ValueError("it contains a space or a control character")  # noqa: TRY301 -- see below
        uri = parse_uri(endpoint)
        uri.host.encode("idna")
    except (InvalidURI, ValueError) as error:
        why = error.msg if isinstance(error, InvalidURI) else str(error)
        raise ConfigurationError(
            f"WebSocketProxy: server_endpoint {masked(endpoint)!r} is not a WebSocket URL: {why}.",
            fix="write ws://host:port/path or wss://host/path, and quote inserted text with "
            "urllib.parse.quote(text, safe='')",
        ) from None  # the text of the original exception contains the whole URL
    if ssl is not None and not uri.secure:
        raise ConfigurationError(
            f"WebSocketProxy: ssl is given, but server_endpoint {masked(endpoint)!r} is not encrypted.",
            fix="write wss://, or omit ssl",
        )
    return uri


def checked_names(names: Collection[str], *, argument: str) -> tuple[str, ...]:
    """Return header names in lower case.

    Raises:
        ConfigurationError: A name is malformed, or belongs to a single hop.
    """
    if isinstance(names, str):
        raise ConfigurationError(
            f"WebSocketProxy: {argument} is one string, {names!r}.", fix=f"write {argument}=({names!r},)"
        )
    lowered = tuple(name.lower() for name in names)
    for name in lowered:
        if not TOKEN.fullmatch(name):
            raise ConfigurationError(
                f"WebSocketProxy: {argument} has {name!r}, which is not a header name.", fix="remove it"
            )
        if name in _HOP_HEADERS or name.startswith("sec-websocket-"):
            raise ConfigurationError(
                f"WebSocketProxy: {argument} has {name!r}, which the proxy itself sets for the upstream connection.",
                fix="remove it, and use subprotocols= for Sec-WebSocket-Protocol or compression= for -Extensions",
            )
    return lowered


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with names in lower case.

    Raises:
        ConfigurationError: A name is malformed or belongs to a single hop, or a value could inject another header.
    """
    checked = dict(zip(checked_names(headers.keys(), argument="extra_headers"), headers.values(), strict=True))
    for name, value in checked.items():
        if _NOT_IN_VALUE.search(value):
            raise ConfigurationError(
                f"WebSocketProxy: the value of extra_headers[{name!r}] has a character that is not allowed in headers.",
                fix="quote it with urllib.parse.quote(text)",
            )
    return checked


def checked_subprotocols(names: Collection[str] | Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return the upstream's name for each of the client's names, or None if all names are forwarded unchanged.

    Raises:
        ConfigurationError: A name is malformed.
    """
    if names is None:
        return None
    if isinstance(names, str):
        raise ConfigurationError(
            f"WebSocketProxy: subprotocols is one string, {names!r}.", fix=f"write subprotocols=[{names!r}]"
        )
    mapping = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    for name in (*mapping.keys(), *mapping.values()):
        if not TOKEN.fullmatch(name):
            raise ConfigurationError(
                f"WebSocketProxy: {name!r} is not a subprotocol name.", fix="use letters, digits, and .-_ only"
            )
    return mapping
