"""The performance goals of dws, and whether the results of one run reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OURS = ("dws-server", "dws")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal.

    Attributes:
        what: The compared figures.
        wanted: The bound, as text.
        measured: The measured figure, as text.
        reached: Whether the figure is within the bound. If None, it was not measured.
    """

    what: str
    wanted: str
    measured: str = "not measured"
    reached: bool | None = None

    @property
    def verdict(self) -> str:
        return "?" if self.reached is None else "yes" if self.reached else "**no**"


def goals(results: dict[str, dict[str, Any]]) -> list[Goal]:
    """Return all goals, with figures where results exist."""
    fanned = results.get("fanout", {}).get("rows", {})
    one, many = fanned.get("1 in flight", {}), fanned.get("64 in flight", {})
    floors = [
        row["floor"]["deliveries_per_cpu_s"]
        for row in fanned.values()
        if "deliveries_per_cpu_s" in row.get("floor", {})
    ]
    return [
        _at_least("one message at a time / uvloop's ready-frame loop", 0.9, _reach(one), _rate(one, "uvloop")),
        _at_least(
            "64 in flight from 16 publishers / the C floor's best row", 10, _reach(many), max(floors, default=None)
        ),
        _at_least("64 in flight / python-socketio", 20, _reach(many), _rate(many, "socketio")),
        _at_least("64 in flight / Channels, memory", 20, _reach(many), _rate(many, "channels")),
        _at_least("64 in flight / Channels, Redis", 20, _reach(many), _rate(many, "channels-redis")),
        _latency(results.get("latency", {})),
        *[_memory(results.get("connect", {}).get("rows", {}), *pair) for pair in _COMPARED],
    ]


_COMPARED = (
    ("dws-starlette", "plain"),
    ("dws-server-starlette", "plain"),
    ("dws", "plain-fastapi"),
    ("dws-server", "plain-fastapi"),
)


def _rate(row: dict[str, Any], name: str) -> float | None:
    rate: float | None = row.get(name, {}).get("deliveries_per_cpu_s")
    return rate


def _reach(row: dict[str, Any]) -> float | None:
    return max((rate for name in OURS if (rate := _rate(row, name)) is not None), default=None)


def _at_least(what: str, bound: float, ours: float | None, theirs: float | None) -> Goal:
    wanted = f"≥ {bound:g}"
    if not ours or not theirs:
        return Goal(what=what, wanted=wanted)
    return Goal(what=what, wanted=wanted, measured=f"{ours / theirs:.2f}", reached=ours / theirs >= bound)


def _latency(result: dict[str, Any]) -> Goal:
    what, wanted = "p99 minus the naive app's p99, at rates below half of both saturations", "≤ 2 ms"
    most = {name: found.get("messages_per_s", 0) for name, found in result.get("saturation", {}).items()}
    ours = next((name for name in OURS if most.get(name)), None)
    if ours is None or not most.get("naive"):
        return Goal(what=what, wanted=wanted)
    bound = min(most[ours], most["naive"]) / 2
    rows = [row for rate, row in result["rows"].items() if float(rate) < bound]
    over = [
        row[ours]["p99_ms"] - row["naive"]["p99_ms"]
        for row in rows
        if "p99_ms" in row.get(ours, {}) and "p99_ms" in row.get("naive", {})
    ]
    if not over:
        return Goal(what=what, wanted=wanted)
    return Goal(what=what, wanted=wanted, measured=f"{max(over):+.2f} ms (`{ours}`)", reached=max(over) <= 2)


def _memory(rows: dict[str, Any], ours: str, theirs: str) -> Goal:
    what, wanted = f"memory of a subscriber among 10,000: `{ours}` / `{theirs}`", "≤ 1.15"
    mine, base = rows.get(ours, {}).get("bytes_each"), rows.get(theirs, {}).get("bytes_each")
    if not mine or not base:
        return Goal(what=what, wanted=wanted)
    return Goal(what=what, wanted=wanted, measured=f"{mine / base:.2f}", reached=mine / base <= 1.15)
