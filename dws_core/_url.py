"""Broker URLs: the address of the broker, and typed options with units."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qsl, quote, unquote

from dws_core._errors import InvalidBrokerURL

T = TypeVar("T")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")  # RFC 3986 §3.1, lower case
_SECRET = re.compile(r"password|passwd|secret|token", re.IGNORECASE)
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}
_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


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
        scheme, separator, rest = text.partition("://")
        if not separator or not _SCHEME.fullmatch(scheme.lower()):
            raise InvalidBrokerURL(
                f"broker URL {_shorten(text)!r} has no scheme.", fix="write scheme://…, for example memory://"
            )
        rest, _, query = rest.partition("?")
        netloc, _, path = rest.partition("/")
        userinfo, at, hosts = netloc.rpartition("@")
        username, _, password = userinfo.partition(":")
        return cls(
            scheme=scheme.lower(),
            username=unquote(username) if username else None,
            password=unquote(password) if at and password else None,
            hosts=tuple(_parse_host(host, scheme) for host in hosts.split(",") if host),
            path=unquote(path),
            options=_parse_query(query, scheme),
        )

    def __str__(self) -> str:
        user = quote(self.username or "", safe="")
        secret = ":***" if self.password is not None else ""
        at = "@" if user or secret else ""
        hosts = ",".join(_show_host(host, port) for host, port in self.hosts)
        path = f"/{quote(self.path)}" if self.path else ""
        options = "&".join(f"{k}={'***' if _SECRET.search(k) else quote(v)}" for k, v in self.options.items())
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
        hints = typing.get_type_hints(schema)
        known = {f.name: hints[f.name] for f in dataclasses.fields(schema)}  # type: ignore[arg-type]  # a dataclass by contract
        for name in self.options:
            if name not in known:
                valid = ", ".join(f"{n} ({_describe(n, t)})" for n, t in known.items()) or "none"
                raise InvalidBrokerURL(
                    f"broker URL {self} has an unknown option {name!r}.", fix=f"use one of the valid options: {valid}"
                )
        return schema(**{name: self._read(name, known[name]) for name in self.options})

    def _read(self, name: str, hint: Any) -> Any:
        try:
            return _convert(name, hint, self.options[name])
        except ValueError:
            shown = "***" if _SECRET.search(name) else repr(self.options[name])
            raise InvalidBrokerURL(
                f"option {name!r} of broker URL {self} cannot be {shown}.",
                fix=f"set it to {_describe(name, hint)}",
            ) from None


def _shorten(text: str) -> str:
    masked = re.sub(r":[^:@/]*@", ":***@", text)
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
            f"broker URL {scheme}://…{unquote(host)}:{port} has an invalid port.", fix="use a port from 1 to 65535"
        )
    return unquote(host), int(port)


def _parse_query(query: str, scheme: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InvalidBrokerURL(
            f"the options of broker URL {scheme}://… are malformed.", fix="write them as ?name=value&name=value"
        ) from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InvalidBrokerURL(f"an option of broker URL {scheme}://… is given twice.", fix="give each option once")
    return options


def _show_host(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _describe(name: str, hint: Any) -> str:
    inner, optional = _unwrap_optional(hint)
    if get_origin(inner) is Literal:
        text = "one of " + ", ".join(get_args(inner))
    elif name.endswith("_s"):
        text = "a duration such as 500ms, 10s or 2m"
    elif name.endswith("_bytes"):
        text = "a size such as 65536 or 64KiB"
    else:
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
        text = names.get(inner, "a value")
    return f"{text}, or none" if optional else text


def _unwrap_optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
        return next(a for a in get_args(hint) if a is not type(None)), True
    return hint, False


def _convert(name: str, hint: Any, text: str) -> Any:
    inner, optional = _unwrap_optional(hint)
    if optional and text.lower() == "none":
        return None
    if get_origin(inner) is Literal:
        return _one_of(text, get_args(inner))
    if name.endswith("_s"):
        return _quantity(text, _DURATIONS)
    if name.endswith("_bytes"):
        return int(_quantity(text, _SIZES))
    if inner is bool:
        return _one_of(text.lower(), ("true", "1", "yes", "false", "0", "no")) in ("true", "1", "yes")
    return inner(text)


def _one_of(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(text)
    return text


def _quantity(text: str, units: Mapping[str, float]) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(text)
    return float(match[1]) * units[match[2].lower()]
