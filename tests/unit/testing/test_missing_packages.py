"""`dws_core.testing` without the packages of its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import sys
sys.modules[{missing!r}] = None
import dws_core.testing
try:
    dws_core.testing.{name}
except dws_core.ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "missing"), [("serve", "uvicorn"), ("BrokerConformance", "pytest"), ("requires_service", "pytest")]
)
def test_missing_package_is_named_with_install_command(name: str, missing: str) -> None:
    said = _run(_CODE.format(name=name, missing=missing))
    assert f"dws_core.testing.{name} needs the package '{missing}', which is not installed" in said
    assert "Fix: install dws-core with its extra `testing`" in said


@pytest.mark.parametrize("name", ["AppClient", "FakeWebSocket", "FaultyBroker"])
def test_helpers_work_without_pytest_and_uvicorn(name: str) -> None:
    assert (
        _run(
            "import sys; sys.modules['pytest'] = sys.modules['uvicorn'] = None\n"
            + _CODE.format(name=name, missing="hypothesis")
        )
        == ""
    )


def _run(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout
