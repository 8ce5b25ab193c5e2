"""Stores results as JSON, with facts about the machine and the run that readers need to interpret them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.contenders import CONTENDERS
from harness.running import Cores

RESULTS = Path(__file__).parents[1] / "results"
_PACKAGES = ("dws-core", "fastapi", "starlette", "uvicorn", "uvloop", "websockets", "msgspec")


def _busy_s() -> float:
    """Return the CPU seconds that this machine was not idle and not waiting (proc_stat(5))."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


_STARTED = (time.monotonic(), _busy_s(), _own_s(), os.getloadavg()[0])


def _others_busy() -> float:
    """Return the share of one core that other processes used during this benchmark."""
    return max(0.0, (_busy_s() - _STARTED[1]) - (_own_s() - _STARTED[2])) / (time.monotonic() - _STARTED[0])


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="small and short, only shows that it works")
    made.add_argument("--only", metavar="A,B", help="run only these contenders")
    made.add_argument("--json", type=Path, metavar="FILE", help="file for the results, instead of benchmarks/results")
    return made


def keep(
    name: str, rows: Any, arguments: argparse.Namespace, cores: Cores | None = None, **facts: object
) -> Path | None:
    """Write results and return the file. Results of a quick run are written only with `--json`."""
    path: Path | None = arguments.json or (None if arguments.quick else RESULTS / f"{name}.json")
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"machine": machine(cores), **facts, "rows": rows}, indent=1) + "\n")
    return path


def machine(cores: Cores | None) -> dict[str, Any]:
    """Return facts about the machine, its load and the installed packages."""
    packages = {*_PACKAGES, *(one.package for one in CONTENDERS.values() if one.package)}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores_of_the_machine": os.cpu_count(),
        "cores_used": asdict(cores) if cores else None,
        "load_average_at_start": round(_STARTED[3], 2),
        "cores_used_by_others": round(_others_busy(), 2),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": {name: found for name in sorted(packages) if (found := _version(name))},
    }


def _commit() -> str:
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS.parent
    )
    return git.stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def median_run(runs: list[dict[str, Any]], by: str) -> dict[str, Any]:
    """Return the median run with the spread and failures of all runs. Return a failed run only if all failed."""
    good = sorted((run for run in runs if "error" not in run), key=lambda run: float(run.get(by, 0)))
    errors = [run["error"] for run in runs if "error" in run]
    if not good:
        return runs[0]
    values = [float(run.get(by, 0)) for run in good]
    middle = good[(len(good) - 1) // 2]
    spread = (max(values) - min(values)) / statistics.median(values) if values[0] else 0.0
    return {**middle, "runs": len(good), "spread": round(spread, 3), **({"failed_runs": errors} if errors else {})}


def in_rounds(rounds: int, cells: list[tuple[str, Callable[[], dict[str, Any]]]], by: str) -> dict[str, dict[str, Any]]:
    """Measure all cells in turn in each round, so that a noisy minute affects all. Return the median runs."""
    runs: dict[str, list[dict[str, Any]]] = {key: [] for key, _ in cells}
    for _ in range(rounds):
        for key, measure in cells:
            if _keeps_failing(runs[key]):
                continue
            runs[key].append(measure())
            print(f"  {key:44} {_line(runs[key][-1], by)}", flush=True)
    return {key: median_run(found, by) for key, found in runs.items()}


def _keeps_failing(runs: list[dict[str, Any]]) -> bool:
    """Return whether further runs are useless: two failed, or one failed for lack of a package, and none succeeded."""
    failed = [run["error"] for run in runs if "error" in run]
    return len(failed) == len(runs) and (len(failed) > 1 or any("not installed" in error for error in failed))


def _line(run: dict[str, Any], by: str) -> str:
    if "error" in run:
        return f"failed: {run['error']}"
    return f"{run[by]:14,.0f}  server {run['server_busy']:4.0%} busy, client {run['client_busy']:4.0%}"
