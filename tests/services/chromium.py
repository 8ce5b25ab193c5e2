"""Finds a Chromium for tests, or installs Debian's."""

from __future__ import annotations

import shutil
from functools import lru_cache

from services.finding import find_or_install

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


@lru_cache(maxsize=1)
def find_chromium() -> str:
    """Return the program's path. If there is none, skip the test, or fail it if the program is required."""
    return find_or_install("browser", _on_path, package="chromium")


def _on_path() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)
