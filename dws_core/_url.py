"""Broker URLs: the address of the broker, and typed options with units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, unquote

from dws_core._errors import InvalidBrokerURL
from dws_core._options import parse_options, read_options, show_options

T = TypeVar("T")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")  # RFC 3986 §3.1, lower case


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerURL:
    """A parsed broker URL. Its text forms never show the password.

    Attributes:
        scheme: Scheme in lower case. It selects the plugin.
        username: User name, or None.
        password: Password, or None. Not shown by `repr` and `str`.
        hosts: Pairs of host and port, in the given order. A port of None is the default of the scheme. Empty for
            `memory://`.
        path: Percent-decoded path after the hosts, without the leading slash. May be empty.
        options: Query options as text. Read them with `read_options`.
    """

    scheme: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    hosts: tuple[tuple[str, int | None], ...] = ()
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> BrokerURL:
        """Parse `scheme://[user[:password]@]host[:port][,host[:port]…][/path][?option=value&…]`.

        Raises:
            InvalidBrokerURL: The text does not have this form. The message masks any password.
        """
        given: object = text  # an application may not be type-checked
        if not isinstance(given, str):
            raise InvalidBrokerURL(
                f"the broker URL is a value of type {type(given).__qualname__}, expected a text.",
                fix="write scheme://…, for example memory://",
            )
        scheme, separator, rest = text.partition("://")
        if not separator or not _SCHEME.fullmatch(scheme.lower()):
            raise InvalidBrokerURL(
                f"broker URL {_shorten(text)!r} has no scheme.", fix="write scheme://…, for example memory://"
            )
        rest, _, query = rest.partition("?")
        netloc, _, path = rest.partition("/")
        if "@" in path or "@" in query:
            raise InvalidBrokerURL(
                f"broker URL {scheme}://… has an @ after its host, so its password probably contains a / or ?.",
                fix="percent-encode the special characters of user and password, for example / as %2F, and @ as %40",
            )
        userinfo, at, hosts = netloc.rpartition("@")
        username, _, password = userinfo.partition(":")
        return cls(
            scheme=scheme.lower(),
            username=unquote(username) if username else None,
            password=unquote(password) if at and password else None,
            hosts=tuple(_parse_host(host, scheme) for host in hosts.split(",") if host),
            path=unquote(path),
            options=parse_options(query, where=f"broker URL {scheme}://…", error=InvalidBrokerURL),
        )

    def __str__(self) -> str:
        user = quote(self.username or "", safe="")
        secret = ":***" if self.password is not None else ""
        at = "@" if user or secret else ""
        hosts = ",".join(_show_host(host, port) for host, port in self.hosts)
        path = f"/{quote(self.path)}" if self.path else ""
        options = show_options(self.options)
        return f"{self.scheme}://{user}{secret}{at}{hosts}{path}" + (f"?{options}" if options else "")

    @property
    def name(self) -> str:
        """Name of the first host, or an empty text. In `memory://name`, the name of the log."""
        return self.hosts[0][0] if self.hosts else ""

    def read_options(self, schema: type[T]) -> T:
        """Convert the query options to a dataclass of the plugin.

        Each field of the schema defines one option, with its name, type and default:

        - A name that ends in `_s` has a duration (`500ms`, `10s`, `2m`, or a number of seconds).
        - A name that ends in `_bytes` has a size (`64KiB`, `1MB`, or a number of bytes).
        - A `bool` is true, false, 1, 0, yes or no. A `Literal` is one of its texts.
        - A type that allows None also accepts `none`.

        Args:
            schema: Dataclass whose fields all have defaults.

        Raises:
            InvalidBrokerURL: An option is not in the schema, or its value is malformed. The error lists the valid ones.
        """
        return read_options(self.options, schema, where=f"broker URL {self}", error=InvalidBrokerURL)


def _shorten(text: str) -> str:
    masked = re.sub(r"^.*@", "***@", text, flags=re.DOTALL)
    return masked if len(masked) <= 60 else masked[:57] + "..."


def _parse_host(text: str, scheme: str) -> tuple[str, int | None]:
    host, colon, port = text, "", ""
    if text.startswith("["):  # an IPv6 address, RFC 3986 §3.2.2
        host, _, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
    elif ":" in text:
        host, colon, port = text.rpartition(":")
    if not colon:
        return unquote(host), None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise InvalidBrokerURL(
            f"broker URL {scheme}://… has an invalid port.",
            fix="use a port from 1 to 65535, and percent-encode the special characters of a password",
        )
    return unquote(host), int(port)


def _show_host(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"
