"""Writes the results into docs/explanation/performance.md, between its markers, and draws the plots.

    python benchmarks/report.py

Each table replaces the text between `<!-- begin:NAME -->` and `<!-- end:NAME -->`. Tables without results stay
unchanged.
"""

from __future__ import annotations

import json
import re
from typing import Any

from harness.contenders import ALONE, CONTENDERS
from harness.goals import goals
from harness.results import RESULTS

ROOT = RESULTS.parents[1]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
IMAGES = ROOT / "docs" / "images"
ONE_TOPIC = ("1 in flight", "4 in flight", "64 in flight")
SPREAD = (
    "10 topics",
    "100 topics",
    "wildcard, shared",
    "wildcard, 10 filters",
    "wildcard, 1 in flight",
    "10,000 subscribers",
)
TITLES = {name: one.title for name, one in {**ALONE, **CONTENDERS}.items()}

Results = dict[str, dict[str, Any]]


def load() -> Results:
    """Return all stored results, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def thousands(value: float) -> str:
    return f"{value / 1000:,.1f} k" if value < 10_000 else f"{value / 1000:,.0f} k"


def cell(found: dict[str, Any] | None, by: str, base: float | None = None) -> str:
    """Return a figure and its ratio to the baseline, or the reason why it is missing."""
    if found is None:
        return ""
    if "error" in found:
        return "not installed" if "not installed" in found["error"] else f"failed: {found['error']}"
    value = found[by]
    return thousands(value) + (f" ({value / base:.2f})" if base else "")


def machine(results: Results) -> str:
    lines = []
    for name, result in results.items():
        facts = result["machine"]
        cores = facts["cores_used"]
        pinned = f", server on core {cores['server']}, client on core {cores['client']}" if cores else ""
        lines.append(
            [
                name,
                facts["date"],
                f"`{facts['commit']}`",
                str(facts["load_average_at_start"]),
                str(facts["cores_used_by_others"]),
                pinned.removeprefix(", ") or "not pinned",
            ]
        )
    facts = next(iter(results.values()))["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    about = f"{facts['cpu']}, {facts['cores_of_the_machine']} cores, {facts['system']}, Python {facts['python']}; {packages}."
    return (
        about
        + "\n\n"
        + table(
            ["benchmark", "date", "commit", "load average before", "cores used by other processes", "pinned"], lines
        )
    )


def fan_out(rows: dict[str, Any], names: tuple[str, ...]) -> str:
    there = [name for name in names if name in rows]
    lines = []
    for name in [name for name in TITLES if any(name in rows[row] for row in there)]:
        cells = [cell(rows[row].get(name), "deliveries_per_cpu_s", _floor(rows[row])) for row in there]
        lines.append([TITLES[name], *cells])
    return table(["deliveries per CPU second (ratio to the C floor)", *there], lines) + "\n\n" + _validity(rows, there)


def _floor(row: dict[str, Any]) -> float | None:
    return row.get("floor", {}).get("deliveries_per_cpu_s")


def _validity(rows: dict[str, Any], there: list[str]) -> str:
    runs = [found for row in there for found in rows[row].values() if "error" not in found]
    if not runs:
        return "No run succeeded."
    busy, spread = max(run["client_busy"] for run in runs), sorted(run["spread"] for run in runs)[len(runs) // 2]
    count = sum(run["delivered"] for run in runs)
    return (
        f"The client was at most {busy:.0%} busy. The runs shown delivered {count:,} messages, and none was lost or "
        f"repeated. Half of the cells varied by less than {spread:.0%} between rounds."
    )


def latency(result: dict[str, Any]) -> str:
    most = result["saturation"]
    names = [name for name in CONTENDERS if "messages_per_s" in most.get(name, {})]
    lines = [["saturation, messages/s", *[f"{most[name]['messages_per_s']:,.0f}" for name in names]]]
    for rate, row in result["rows"].items():
        lines.append([f"{rate}/s", *[_p50_p99(row.get(name)) for name in names]])
    return table(
        ["p50 / p99 in ms", *[TITLES[name].partition(":")[0].partition(",")[0] + f" (`{name}`)" for name in names]],
        lines,
    )


def _p50_p99(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return "failed" if "error" in found else f"{found['p50_ms']:.2f} / {found['p99_ms']:.2f}"


def inbound(rows: dict[str, Any]) -> str:
    base = rows.get("naive", {}).get("acks_per_cpu_s")
    lines = []
    for name, found in rows.items():
        waits = "" if "error" in found else f"{found['ack_p50_ms']:.1f} / {found['ack_p99_ms']:.1f}"
        lines.append([TITLES[name], cell(found, "acks_per_cpu_s", base), waits])
    return table(["publishes with ack", "per CPU second (ratio to naive)", "ack p50 / p99 in ms"], lines)


def connect(rows: dict[str, Any]) -> str:
    base = rows.get("plain", {})
    lines = []
    for name, found in rows.items():
        size = (
            ""
            if "error" in found
            else f"{found['bytes_each'] / 1000:,.1f} KB ({found['bytes_each'] / base['bytes_each']:.2f})"
        )
        lines.append([TITLES[name], cell(found, "connects_per_cpu_s", base.get("connects_per_cpu_s")), size])
    return table(
        ["10,000 subscribers", "connects per CPU second (ratio to Starlette)", "memory per connection (ratio)"], lines
    )


def idle(rows: dict[str, Any]) -> str:
    base = rows["plain"]["bytes_each"]
    lines = [
        [name, f"{row['bytes_each'] / 1000:.1f} KB ({row['bytes_each'] / base:.2f})"] for name, row in rows.items()
    ]
    return table(["10,000 idle connections, in FastAPI", "memory per connection (ratio)"], lines)


def rates(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            row["what"],
            thousands(row["per_s"]),
            thousands(row["baseline_per_s"]),
            f"{row['per_s'] / row['baseline_per_s']:,.1f}",
            row["baseline"],
        ]
        for row in rows
    ]
    return table(["operation", "per CPU second", "baseline per CPU second", "ratio", "baseline"], lines)


def sections(results: Results) -> dict[str, str]:
    """Return the text for each marker that has results."""
    made = {"machine": machine(results), "goals": _goals(results)}
    if fanned := results.get("fanout"):
        made["fanout"] = fan_out(fanned["rows"], ONE_TOPIC)
        made["topics"] = fan_out(fanned["rows"], SPREAD)
    if "latency" in results:
        made["latency"] = latency(results["latency"])
    if "routing" in results:
        made["routing"] = rates(results["routing"]["rows"]["rates"])
    writers = {"inbound": inbound, "connect": connect, "idle": idle, "codecs": rates}
    return made | {name: write(results[name]["rows"]) for name, write in writers.items() if name in results}


def _goals(results: Results) -> str:
    lines = [[goal.what, goal.wanted, goal.measured, goal.verdict] for goal in goals(results)]
    return table(["goal", "target", "measured", "reached"], lines)


def fill(page: str, texts: dict[str, str]) -> str:
    """Return the page with each text between its markers."""
    for name, text in texts.items():
        begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        page, times = pattern.subn(lambda _, text=f"{begin}\n\n{text}\n\n{end}": text, page)
        if times != 1:
            raise SystemExit(f"{PAGE.name} has {times} places for {name!r}. Fix: add exactly one {begin} … {end}")
    return page


def main() -> None:
    results = load()
    if not results:
        raise SystemExit("There are no results yet. Fix: run `python benchmarks/run.py` first")
    PAGE.write_text(fill(PAGE.read_text(), sections(results)))
    print(f"written to {PAGE}")
    try:
        from harness.plots import draw
    except ModuleNotFoundError as error:
        print(f"no plots, because {error.name} is not installed")
        return
    for path in draw(results, IMAGES):
        print(f"drawn to {path}")


if __name__ == "__main__":
    main()
