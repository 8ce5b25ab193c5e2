"""Draws the results: fan-out, latency by rate, memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed

import matplotlib.pyplot as plt

from harness.contenders import ALONE, CONTENDERS

OURS, THEIRS, FLOOR = "#1f6feb", "#9aa4af", "#d9dee3"
FAN_OUT = ("1 in flight", "4 in flight", "64 in flight")


def draw(results: dict[str, dict[str, Any]], folder: Path) -> Iterator[Path]:
    """Draw all plots that have results, and yield their files."""
    folder.mkdir(exist_ok=True)
    if fanned := results.get("fanout"):
        yield _fan_out(fanned["rows"], folder / "performance-fanout.png")
    if timed := results.get("latency"):
        yield _latency(timed, folder / "performance-latency.png")
    if weighed := results.get("connect"):
        yield _memory(weighed["rows"], folder / "performance-memory.png")


def _color(name: str) -> str:
    return (
        OURS if name.startswith("dws") else FLOOR if name in ("floor", "uvloop", "plain", "plain-fastapi") else THEIRS
    )


def _title(name: str) -> str:
    return {**ALONE, **CONTENDERS}[name].title.replace("**", "").replace("`", "").replace("dws_core.server:", "")


def _bars(axes: Any, values: dict[str, float], form: str) -> None:
    names = list(reversed(values))
    bars = axes.barh(
        [_title(name) for name in names], [values[name] for name in names], color=[_color(name) for name in names]
    )
    axes.bar_label(bars, labels=[form.format(values[name]) for name in names], padding=3, fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _fan_out(rows: dict[str, Any], path: Path) -> Path:
    there = [row for row in FAN_OUT if row in rows]
    figure, panels = plt.subplots(1, len(there), figsize=(4 + 3.2 * len(there), 4.2), sharey=True, squeeze=False)
    for axes, row in zip(panels[0], there, strict=True):
        values = {
            name: found["deliveries_per_cpu_s"] / 1000 for name, found in rows[row].items() if "error" not in found
        }
        _bars(axes, values, "{:,.0f}")
        axes.set_xscale("log")
        axes.margins(x=0.25)
        axes.set_title(row, fontsize=9)
    figure.suptitle("1,000 subscribers of one topic: thousand deliveries per CPU second of the server", fontsize=10)
    return _save(figure, path)


def _latency(result: dict[str, Any], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for name, found in result["saturation"].items():
        points = [
            (int(rate), row[name]["p99_ms"]) for rate, row in result["rows"].items() if "p99_ms" in row.get(name, {})
        ]
        if "error" not in found and points:
            style = (
                {"linewidth": 2.2, "color": OURS if name != "dws" else "#79b8ff"}
                if name.startswith("dws")
                else {"linewidth": 1}
            )
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=_title(name), **style)
    axes.set(
        xlabel="messages per second, each to 100 subscribers",
        ylabel="p99 of the delivery in ms",
        yscale="log",
        xscale="log",
    )
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _memory(rows: dict[str, Any], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    _bars(axes, {name: found["bytes_each"] / 1000 for name, found in rows.items() if "error" not in found}, "{:,.1f}")
    axes.set_title("memory per subscriber in KB, with 10,000 subscribers", fontsize=9)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
