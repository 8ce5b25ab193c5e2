"""`python -m dws_core`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from dws_core.__main__ import main


def test_plugins_command_lists_installed_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    for expected in ("dws-memory", "memory", "json", "msgpack", "mqtt", "oauth2-bearer"):
        assert expected in out


def test_doctor_checks_broker_round_trip(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "memory://"]) == 0
    assert capsys.readouterr().out.count("ok ") == 5


@pytest.mark.parametrize(
    ("url", "step", "text"),
    [
        ("nonsense", "parse", "Fix"),
        ("redsi://:pw@h", "plugin", "Did you mean 'redis'"),
        ("memory://?x=1", "options", "key_ttl_s"),
    ],
)
def test_doctor_reports_failed_step_and_fix(capsys: pytest.CaptureFixture[str], url: str, step: str, text: str) -> None:
    assert main(["doctor", url]) == 1
    out = capsys.readouterr().out
    assert f"FAILED  {step}" in out
    assert text in out
    assert "pw" not in out


def test_module_runs_and_prints_help() -> None:
    run = subprocess.run([sys.executable, "-m", "dws_core", "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert "doctor" in run.stdout
    assert subprocess.run([sys.executable, "-m", "dws_core"], capture_output=True, check=False).returncode == 2


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dws-core {version('dws-core')}\n"


def test_plugins_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    row = next(row for row in rows if row["names"] == ["memory"])
    assert (row["plugin"], sorted(row)) == (
        "memory",
        ["distribution", "kind", "names", "plugin", "summary"],
    )


@pytest.mark.parametrize("count", ["-1", "many"])
def test_invalid_count_is_refused(count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["listen", "ws://h/ws", "t", "--count", count])
    assert ended.value.code == 2
