"""The tables of the close codes and of the limits."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dws_core import CloseCode, Limits
from dws_core._limits.limits import OVER_LIMIT
from generator.text import cell, table


def close_codes() -> str:
    """Return the table of close codes."""
    rows = []
    for code in CloseCode:
        meaning = code.meaning if code.is_sent else f"{code.meaning} (reserved)"
        reconnect = ", ".join(filter(None, ("yes", code.advice))) if code.reconnect else "no"
        rows.append((f"{code:d}", meaning, reconnect))
    return table(("code", "meaning", "reconnect?"), rows)


def limits() -> str:
    """Return the table of the fields of `Limits`."""
    rows = [(f"`{f.name}`", _default(f.name, f.default), OVER_LIMIT[f.name]) for f in fields(Limits)]
    return table(("field", "default", "over it"), rows)


def _default(name: str, value: Any) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, str):
        return f"`{value}`"
    units = {"_per_s": " per second", "_bytes": " bytes", "_s": " s"}
    return cell(value, next((unit for suffix, unit in units.items() if name.endswith(suffix)), ""))
