"""The page of limits names every request, every limit, and tests that exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from dws_core import Limits
from dws_core._node.requests.dispatcher import Dispatcher

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/limits.md").read_text()
TEST = re.compile(r"`((?:tests|plugins)/[\w/]+\.py(?:::\w+)?)`")


def test_every_request_has_row_with_test() -> None:
    requests = set(re.findall(r'"(\w+)": self\._\w+,', inspect.getsource(Dispatcher.__init__)))
    assert "send_by_conn_id" in requests
    section = PAGE.partition("## Bounds of each message")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", section, re.MULTILINE))
    assert rows.keys() == requests
    assert [name for name, cells in rows.items() if not TEST.search(cells)] == []


def test_every_limit_is_named() -> None:
    assert [field.name for field in fields(Limits) if f"`{field.name}`" not in PAGE] == []


def test_every_named_test_is_collected() -> None:
    names = sorted(set(TEST.findall(PAGE)))
    assert len(names) > 30
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *names]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
