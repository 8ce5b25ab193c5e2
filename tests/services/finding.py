"""Finds the program of a service, or installs it where the service is required."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def is_required(service: str) -> bool:
    """Return whether a missing service is a failure: `DWS_REQUIRE_SERVICES` names it."""
    return service in os.environ.get("DWS_REQUIRE_SERVICES", "").split(",")


def find_or_install(service: str, look: Callable[[], T | None], *, package: str) -> T:
    """Return what `look` finds. If it finds nothing, skip the test, or fail it if the service is required.

    A missing service that is required is installed with its Debian package, if this process may do so.

    Args:
        service: Name of the service in `DWS_REQUIRE_SERVICES`.
        look: Returns the program, or None.
        package: Name of the Debian package.
    """
    found = look()
    if found is None and is_required(service) and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        with one_process_at_a_time():
            found = look()
            if found is None:
                _install(package)
                found = look()
    return found if found is not None else missing(service, fix=f"apt-get install {package}")


def missing(service: str, *, fix: str) -> T:
    """Skip the test, or fail it if the service is required."""
    text = f"no {service} on this machine. Fix: {fix}"
    if is_required(service):
        pytest.fail(text)
    pytest.skip(text)


@contextmanager
def one_process_at_a_time() -> Iterator[None]:
    """Wait until no other test run installs a service."""
    import fcntl

    with Path(tempfile.gettempdir(), "dws-tests-install.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(package: str) -> None:
    """Install a package without starting its service, because the tests start their own."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", package]):
        subprocess.run(["apt-get", *command], check=True, env=environment)
