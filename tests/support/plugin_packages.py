"""Installs plugin packages into a folder, as pip does, and runs Python with them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(
    site: Path, distribution: str, source: str = "", *, points: str = "", version: str = "1.0", group: str = "dws_core"
) -> None:
    """Install a distribution with one module.

    Args:
        site: The folder, for `PYTHONPATH`.
        distribution: Name of the distribution. The module has the same name with underscores.
        source: Source text of the module.
        points: Lines of the entry-point group. If empty, one entry point with the name of the distribution after `dws-`.
        version: Version of the distribution.
        group: Name of the entry-point group.
    """
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(textwrap.dedent(source))
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = textwrap.dedent(points) or f"{distribution.removeprefix('dws-')} = {module}"
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")


def run_python(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of a folder installed."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
