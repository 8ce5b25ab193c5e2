"""Values that are no JSON values, but stand for one: models of pydantic, subclasses of plain types, numbers of numpy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

_CONSTANTS: Final = {None: "null", True: "true", False: "false"}
"""Keys of objects that JSON writes as these texts. As values, the encoder knows them."""


def _by_text(plain: Any) -> Callable[[Any], Any]:
    return lambda value: plain.fromisoformat(plain.isoformat(value))


def _by_fields(plain: Any, *names: str) -> Callable[[Any], Any]:
    return lambda value: plain(*(getattr(value, name) for name in names))


_PLAIN: Final[tuple[tuple[type[Any], Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (datetime, _by_text(datetime)),
    (date, _by_fields(date, "year", "month", "day")),
    (time, _by_text(time)),
    (timedelta, _by_fields(timedelta, "days", "seconds", "microseconds")),
    (Decimal, Decimal),
)
"""For each plain type, a function that makes a plain value of an instance of a subclass. A class comes before its bases.

The functions keep their own references to the types, because tests with a fixed time replace the names.
"""


def plain_value(value: Any) -> Any:
    """Return the value to encode instead of one that the encoder does not know.

    Raises:
        TypeError: The value stands for no JSON value.
    """
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    for plain, convert in _PLAIN:
        if isinstance(value, plain):
            return convert(value)
    if callable(dump := getattr(type(value), "model_dump", None)):
        return dump(value, mode="json")
    numpy = sys.modules.get("numpy")  # a number of numpy exists only if numpy is imported
    if numpy is not None and isinstance(value, numpy.generic):
        converted = value.item()
        if type(converted) is not type(value):
            return converted
    raise TypeError(f"values of type {type(value).__qualname__} are not supported")
