"""Commands that install a distribution from where it, or dws itself, came from: an index, a folder, or a repository.

A package of a checkout may not be on an index, where its name could even belong to somebody else.
"""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError
from importlib.metadata import distribution as _distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dws_core._plugins.records import CORE


def how_to_install(plugin: str) -> str:
    """Return the command that installs a plugin of this repository, such as `dws-redis`.

    Args:
        plugin: Name of the distribution.
    """
    origin = origin_of(CORE)
    folder = f"plugins/{plugin.replace('-', '_')}"
    if "dir_info" in origin:
        path = _path(origin) / folder
        return f"pip install {shlex.quote(str(path))}" if path.is_dir() else f"install {plugin} as you installed {CORE}"
    if "vcs_info" in origin:
        return f"pip install {shlex.quote(f'{plugin} @ {_repository(origin)}#subdirectory={folder}')}"
    return f"install {plugin} as you installed {CORE}" if origin else f"pip install {plugin}"


def how_to_reinstall(distribution: str) -> str:
    """Return the command that repairs an installed distribution."""
    origin = origin_of(distribution)
    if "dir_info" in origin:
        option = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install --force-reinstall {option}{shlex.quote(str(_path(origin)))}"
    if origin:
        return f"reinstall {distribution} from {origin['url']}"
    return f"pip install --force-reinstall {distribution}"


def origin_of(distribution: str) -> dict[str, Any]:
    """Return the origin that the installer has recorded (PEP 610). Empty if it was an index, or is unknown."""
    try:
        found = json.loads(_distribution(distribution).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("url"), str) else {}


def _path(origin: dict[str, Any]) -> Path:
    return Path(url2pathname(urlsplit(origin["url"]).path))


def _repository(origin: dict[str, Any]) -> str:
    vcs = origin["vcs_info"]
    revision = vcs.get("requested_revision") or vcs.get("commit_id")
    return f"{vcs.get('vcs', 'git')}+{origin['url']}" + (f"@{revision}" if revision else "")
