"""Every guarantee of the page names its tests, and these tests exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/guarantees.md").read_text()
TEST = re.compile(r"`((?:tests|plugins)/[\w/]+\.py::[\w:]+)`")
SENTENCES = re.findall(r"^- (.+?)(?=^- |^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)


def test_every_guarantee_names_a_test() -> None:
    assert len(SENTENCES) > 30
    assert [sentence for sentence in SENTENCES if not TEST.search(sentence)] == []


def test_every_named_test_is_collected() -> None:
    names = sorted(set(TEST.findall(PAGE)))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *names]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    collected = {line.partition("[")[0] for line in ran.stdout.splitlines() if "::" in line}
    assert collected == set(names)
