"""Members of a node's frames, whose types are checked: the node may be broken or hostile.

The errors are turned into `InvalidMessage` by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dws_core._errors import InvalidMessage

_MIN_S: Final = 0.01
_MAX_S: Final = 3_600.0


def text_of(frame: Mapping[str, Any], name: str) -> str:
    """Return a member that must be a string."""
    if not isinstance(value := frame[name], str):
        raise TypeError(f"member {name!r} must be a string")
    return value


def text_or_none(frame: Mapping[str, Any], name: str) -> str | None:
    """Return a member that may be absent, and must be a string otherwise."""
    return None if frame.get(name) is None else text_of(frame, name)


def texts_of(frame: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a member that must be an array of strings."""
    value = frame[name]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise TypeError(f"member {name!r} must be an array of strings")
    return tuple(value)


def seconds_of(frame: Mapping[str, Any], name: str) -> float:
    """Return a member that must be a time to wait, in seconds. The result is between 10 ms and an hour."""
    value = frame[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:  # also refuses NaN
        raise ValueError(f"member {name!r} must be a number of seconds")
    return float(max(_MIN_S, min(value, _MAX_S)))


def broken() -> InvalidMessage:
    """Return the error for a frame that breaks the protocol."""
    return InvalidMessage("the node sent a frame that breaks the protocol.", fix="check the node's log")
