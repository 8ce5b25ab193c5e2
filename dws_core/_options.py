"""Typed options with units, written as `name=value&name=value`: of broker URLs, and of plugins chosen by name."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qsl, quote

from dws_core._errors import ConfigurationError

T = TypeVar("T")

_SECRET = re.compile(r"password|passwd|secret|token", re.IGNORECASE)
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}
_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_options(query: str, *, where: str, error: type[ConfigurationError]) -> dict[str, str]:
    """Return the options of a query as text.

    Args:
        query: The text after the question mark. May be empty.
        where: The place of the options, for errors.
        error: Class of the error to raise.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise error(f"the options of {where} are malformed.", fix="write them as ?name=value&name=value") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise error(f"an option of {where} is given twice.", fix="give each option once")
    return options


def show_options(options: Mapping[str, str]) -> str:
    """Return the query of options, without the values of secrets."""
    return "&".join(f"{name}={'***' if _SECRET.search(name) else _quoted(value)}" for name, value in options.items())


def _quoted(value: str) -> str:
    """Quote a value for display. A lone surrogate, which UTF-8 cannot encode, is shown as its escape."""
    return quote(value, errors="backslashreplace")


def read_options(options: Mapping[str, str], schema: type[T], *, where: str, error: type[ConfigurationError]) -> T:
    """Convert options to a dataclass whose fields all have defaults. See `BrokerURL.read_options`.

    Args:
        options: The options as text.
        schema: The dataclass.
        where: The place of the options, for errors.
        error: Class of the error to raise.
    """
    hints = typing.get_type_hints(schema)
    known = {f.name: hints[f.name] for f in dataclasses.fields(schema) if f.init}  # type: ignore[arg-type]  # a dataclass by contract
    for name in options:
        if name not in known:
            valid = ", ".join(f"{n} ({_describe(n, t)})" for n, t in known.items()) or "none"
            raise error(f"{where} has an unknown option {name!r}.", fix=f"use one of the valid options: {valid}")
    values = {}
    for name, text in options.items():
        try:
            values[name] = _convert(name, known[name], text)
        except ValueError:
            shown = "***" if _SECRET.search(name) else repr(text)
            raise error(
                f"option {name!r} of {where} cannot be {shown}.", fix=f"set it to {_describe(name, known[name])}"
            ) from None
    try:
        return schema(**values)
    except ConfigurationError:
        raise
    except ValueError as reason:
        raise error(f"the options of {where} are refused: {reason}.", fix="correct the options") from reason


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
