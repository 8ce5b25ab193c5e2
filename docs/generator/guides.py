"""The files of the plugins that the guides write, from the skeletons of `python -m dws_core new`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dws_core._new import Names, skeleton

GUIDES: Final = {
    "broker": "echo",
    "wire": "ledger",
    "codec": "reversed",
    "authenticator": "api-key",
    "matcher": "glob",
}
"""The plugin that the guide of each kind writes."""

LANGUAGES: Final = {".py": "python", ".toml": "toml"}
"""The files of a skeleton that its guide shows, by suffix."""


def guide_files(kind: str) -> str:
    """Return the files of a skeleton as blocks, each after a line with its path."""
    names = Names(GUIDES[kind])
    shown = {path: text for path, text in skeleton(kind, names).items() if Path(path).suffix in LANGUAGES}
    return "\n\n".join(
        f"`{names.distribution}/{path}`\n\n<!-- not run: tests/contract/test_guides.py runs this file -->\n"
        f"```{LANGUAGES[Path(path).suffix]}\n{text}```"
        for path, text in shown.items()
    )
