"""Another type checker than mypy accepts the public API, and reports the same mistakes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_basedpyright_agrees_with_the_typed_examples(tmp_path: Path) -> None:
    """Every `type: ignore` in them must be needed, so a mistake that is no longer reported fails this test."""
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed. `nox -s types` runs this test with it")
    settings = {
        "include": [str(ROOT / "tests/typing")],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "-p", str(tmp_path), "--pythonpath", sys.executable]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
