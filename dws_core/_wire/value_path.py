"""The path of the value that cannot be encoded, such as `data.items[3].price`.

Encoders name the reason of a failure, but not the place. It is found by encoding parts again, which costs about two more
encodings of the failing part for each level of nesting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_ROOT: Final = "data"

_MAX_LEVELS: Final = 10
"""Maximum number of levels to search, which bounds the cost of a message that a client has nested on purpose."""

_MAX_KEY_LENGTH: Final = 40
"""Maximum number of characters of a key that are shown."""

_FIELDS: Final = ("__dataclass_fields__", "__struct_fields__")

Fails = Callable[[Any], bool]
"""Returns whether a value cannot be encoded."""


def path_of_failure(value: Any, fails: Fails) -> str:
    """Return the path of the first part of a value that cannot be encoded.

    Args:
        value: A value that cannot be encoded.
        fails: Returns whether a value cannot be encoded.
    """
    path, outer = _ROOT, [value]
    for _ in range(_MAX_LEVELS):
        if isinstance(value, Mapping) and fails(dict.fromkeys(value)):
            return f"a key of {path}"
        found = _failing_part(value, fails)
        if found is None:
            return path
        step, value = found
        path += step
        if any(value is container for container in outer):
            return f"{path}, which contains itself"
        outer.append(value)
    return f"{path}…"


def _failing_part(value: Any, fails: Fails) -> tuple[str, Any] | None:
    """Return the step to the first failing part of a value, and the part. None if the value itself fails."""
    if getattr(value, "__pydantic_root_model__", False):
        return "", value.root
    if callable(dump := getattr(type(value), "model_dump", None)):
        return _failing_field(value, dump)
    steps, parts = _parts_of(value)
    if not parts or not fails(parts):
        return None
    low, high = 0, len(parts)
    while high - low > 1:  # the first failing part is one of parts[low:high]
        middle = (low + high) // 2
        low, high = (low, middle) if fails(parts[low:middle]) else (middle, high)
    return _step(steps[low]), parts[low]


def _failing_field(model: Any, dump: Callable[..., object]) -> tuple[str, Any] | None:
    """Return the first field that a model of pydantic cannot dump. A model also dumps values that encoders do not know."""

    def fails(*fields: str) -> bool:
        try:
            dump(model, mode="json", include=set(fields))
        except Exception:  # noqa: BLE001 -- serializers of an application may raise anything
            return True
        return False

    if fails():
        return None  # the model has a serializer of its own
    return next(((f".{name}", getattr(model, name, None)) for name in type(model).model_fields if fails(name)), None)


def _parts_of(value: Any) -> tuple[Sequence[Any], list[Any]]:
    """Return the keys and the parts of a value. Both are empty if the value has no parts with a key."""
    if isinstance(value, Mapping):
        return list(value), list(value.values())
    if isinstance(value, list | tuple):
        return range(len(value)), list(value)
    fields = next((found for name in _FIELDS if (found := getattr(type(value), name, None))), None)
    names = [field.name for field in getattr(type(value), "__attrs_attrs__", ())] if fields is None else list(fields)
    return names, [getattr(value, name, None) for name in names]


def _step(key: Any) -> str:
    if isinstance(key, str) and key.isidentifier() and len(key) <= _MAX_KEY_LENGTH:
        return f".{key}"
    shown = repr(key) if isinstance(key, str | int | float | None) else f"a {type(key).__qualname__}"
    return f"[{shown if len(shown) <= _MAX_KEY_LENGTH else shown[:_MAX_KEY_LENGTH] + '…'}]"
