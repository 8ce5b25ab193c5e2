"""A private nginx for tests, with a configuration from a page of the docs."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from services.finding import find_or_install
from services.starting import wait_until_ready
from support.timeouts import HANG_S


@lru_cache(maxsize=1)
def find_nginx() -> str:
    """Return the program's path. If there is none, skip the test, or fail it if the program is required."""
    return find_or_install("nginx", _on_path, package="nginx-light")


def _on_path() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def running_nginx(http: str, folder: Path, *, port: int) -> Iterator[None]:
    """Run nginx with the content of a `http` block, until the end of the `with` block.

    Args:
        http: The content. It must listen on the port.
        folder: An empty folder for all files of nginx.
        port: The port, which accepts connections when the block begins.
    """
    paths = "\n".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder / 'pid'}; error_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}\n{http}\n}}\n"
    )
    command = [find_nginx(), "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(config)]
    subprocess.run([*command, "-t"], check=True, capture_output=True, timeout=HANG_S)
    process = subprocess.Popen(command)
    try:
        wait_until_ready("nginx", lambda: _accepts(port), process, folder / "error.log")
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=HANG_S).close()
    except OSError:
        return False
    return True
