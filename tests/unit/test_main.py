"""`python -m dws_core`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dws_core.__main__ import main


def test_plugins_lists_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    for expected in ("dws-memory", "memory", "json", "msgpack", "mqtt", "oauth2-bearer"):
        assert expected in out


def test_doctor_tries_a_broker_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "memory://"]) == 0
    assert capsys.readouterr().out.count("ok ") == 5


@pytest.mark.parametrize(
    ("url", "step", "text"),
    [
        ("nonsense", "parse", "Fix"),
        ("redsi://:pw@h", "plugin", "did you mean 'redis'"),
        ("memory://?x=1", "options", "key_ttl_s"),
    ],
)
def test_doctor_says_which_step_failed_and_how_to_mend_it(
    capsys: pytest.CaptureFixture[str], url: str, step: str, text: str
) -> None:
    assert main(["doctor", url]) == 1
    out = capsys.readouterr().out
    assert f"FAILED  {step}" in out
    assert text in out
    assert "pw" not in out


def test_it_runs_as_a_module_and_explains_itself() -> None:
    run = subprocess.run([sys.executable, "-m", "dws_core", "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert "doctor" in run.stdout
    assert subprocess.run([sys.executable, "-m", "dws_core"], capture_output=True, check=False).returncode == 2
