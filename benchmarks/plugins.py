"""Plugins: the cost of importing dws, and of the first look-up with many installed plugins.

    python benchmarks/plugins.py [--quick]

Each round is a new process. Twenty distributions with one plugin each are installed into a temporary folder on
`sys.path`. Every one imports only `dws_core.plugin`. Read the best round: the others include the machine's other work.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from harness.results import keep, parser

PLUGINS: Final = 20
LIMIT_MS: Final = 50.0
"""Maximum time of the first look-up with all plugins installed."""

MODULE = """
from dws_core.plugin import CodecSpec, hookimpl


def _load():
    raise RuntimeError("not loaded by a look-up of another plugin")


@hookimpl
def dws_register_codecs():
    yield CodecSpec(name="bench{number}", load=_load, content_type="application/x-bench", summary="A codec.")
"""
LOOK_UP = """
import json, time
import dws_core.plugin
registry = dws_core.plugin.PluginRegistry()
began = time.perf_counter()
registry.codec("json")
first = time.perf_counter()
registry.codec("msgpack")
second = time.perf_counter()
failed = [row.summary for row in registry.rows() if row.kind == "failed"]
codecs = sum(row.kind == "codec" for row in registry.rows())
print(json.dumps({"first_ms": (first - began) * 1e3, "next_ms": (second - first) * 1e3, "codecs": codecs, "failed": failed}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table, in milliseconds."""

    name: str
    best_ms: float
    median_ms: float
    rounds: int


def install(site: Path, plugins: int) -> None:
    """Write distributions with entry points, as pip does."""
    for number in range(plugins):
        (site / f"dws_bench{number}.py").write_text(MODULE.format(number=number))
        info = site / f"dws_bench{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dws-bench{number}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dws_core]\nbench{number} = dws_bench{number}\n")


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the folder on its path."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True)


def look_up(plugins: int, rounds: int) -> list[Row]:
    """Measure the first and the next look-up in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), plugins)
        run(Path(folder), "-c", LOOK_UP)  # writes the bytecode
        found = [json.loads(run(Path(folder), "-c", LOOK_UP).stdout) for _ in range(rounds)]
    if any(result["failed"] or result["codecs"] < plugins for result in found):
        raise SystemExit(f"not all plugins were loaded: {found[0]}")
    return [
        _row(f"first look-up, {plugins} more plugins", [result["first_ms"] for result in found]),
        _row(f"next look-up, {plugins} more plugins", [result["next_ms"] for result in found]),
    ]


def imports(rounds: int) -> list[Row]:
    """Measure imports with `-X importtime`, cumulative."""
    names = ("dws_core", "fastapi", "importlib.metadata", "dws_core._plugins.registry")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        lines = run(Path(), "-X", "importtime", "-c", "import dws_core").stderr
        for name in names:
            found = re.search(rf"\|\s+(\d+) \| +{re.escape(name)}$", lines, re.MULTILINE)
            times[name].append(int(found[1]) / 1e3 if found else 0.0)
    return [_row(f"import of {name}", times[name]) for name in names]


def _row(name: str, values: list[float]) -> Row:
    return Row(name=name, best_ms=min(values), median_ms=statistics.median(values), rounds=len(values))


def main() -> None:
    """Print the table, and fail if the first look-up is over the limit."""
    arguments = parser(__doc__).parse_args()
    rounds = 2 if arguments.quick else 15
    rows = [*imports(rounds), *look_up(0, rounds), *look_up(PLUGINS, rounds)]
    print(f"{'':42}{'best, ms':>10}{'median, ms':>12}")
    for row in rows:
        print(f"{row.name:42}{row.best_ms:10.2f}{row.median_ms:12.2f}")
    if path := keep("plugins", [asdict(row) for row in rows], arguments):
        print(f"written to {path}")
    first = next(row for row in rows if row.name.startswith(f"first look-up, {PLUGINS}"))
    if not arguments.quick and first.best_ms >= LIMIT_MS:
        raise SystemExit(f"the first look-up takes {first.best_ms:.1f} ms, the limit is {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()
