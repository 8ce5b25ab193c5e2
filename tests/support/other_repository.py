"""Runs pytest in another repository, as the author of a plugin does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ALONE = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:cov"]
RUN_S = 900.0
"""Maximum duration of a run, in seconds."""


def run_pytest(
    folder: Path, *arguments: str, each_s: float | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run pytest as another repository does: in its own folder, with the pytest plugins of anyio and of the core.

    Args:
        each_s: Timeout of each test in seconds. If None, tests have no timeout.
    """
    timing = ["-p", "no:timeout"] if each_s is None else [f"--timeout={each_s}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(folder), "--strict-markers", *ALONE, *timing, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
