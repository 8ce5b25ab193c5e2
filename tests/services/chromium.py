"""Finds a Chromium for tests, or installs Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Arguments of a browser that connects to the test only."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def is_required() -> bool:
    """Whether a missing browser is a failure: `DWS_REQUIRE_SERVICES` names `browser`."""
    return "browser" in os.environ.get("DWS_REQUIRE_SERVICES", "").split(",")


@lru_cache(maxsize=1)
def find_chromium() -> str:
    """Return the program's path. If there is none, skip the test, or fail it if the program is required."""
    found = _on_path()
    if found is None and is_required() and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True, env=environment)
        found = _on_path()
    if found is None:
        text = "no Chromium on PATH. Fix: apt-get install chromium"
        if is_required():
            pytest.fail(text)
        pytest.skip(text)
    return found


def _on_path() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)
