"""A private Redis for tests: a separate process with a free loopback port and its own folder."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from services.finding import find_or_install
from services.starting import wait_until_ready
from support import signals
from support.timeouts import HANG_S

_PAUSE_S: Final = 0.005
_EMPTY: Final = '""'


@lru_cache(maxsize=1)
def find_redis() -> str:
    """Return the program's path. If there is none, skip the test, or fail it if the program is required."""
    return find_or_install("redis", _on_path, package="redis-server")


def _on_path() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


_PORTS: Final = range(12_000, 22_000)
"""Ports below the range that Linux uses for clients. A restarted Redis keeps its port, in a cluster also + 10,000."""


def free_port() -> int:
    """Return a port that was just free."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class PrivateRedis:
    """A Redis that the test may stop, freeze or change.

    Args:
        aof: Whether to use an append-only file, synced after each write.
        mode: Mode of the process. `sentinel` starts a sentinel instead of a server.
        **settings: Settings of redis.conf.
    """

    def __init__(self, *, aof: bool = False, mode: Literal["server", "sentinel"] = "server", **settings: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="dws-redis-"))
        self._mode = mode
        self.settings = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "daemonize": "no"}
        if mode == "server":
            aof_settings = {"appendonly": "yes" if aof else "no", "appendfsync": "always"}
            self.settings |= {"save": "", **aof_settings}
        self.settings |= settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the process, and return when it replies to PING."""
        process = self.launch()
        wait_until_ready("Redis", lambda: self._replies_as(process.pid), process, self.folder / "log.txt")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting."""
        program = find_redis()
        file = self.folder / "redis.conf"
        if not file.exists():  # a sentinel writes its state into this file
            file.write_text("".join(f"{name} {value or _EMPTY}\n" for name, value in self.settings.items()))
        options = ["--sentinel"] if self._mode == "sentinel" else []
        log = (self.folder / "log.txt").open("ab")
        self._process = subprocess.Popen([program, str(file), *options], stdout=log, stderr=log)
        log.close()
        return self._process

    def kill(self) -> None:
        """Kill the process, like a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Freeze the process with its connections open, and return when it has stopped."""
        assert self._process is not None
        signals.stop(self._process.pid)

    def thaw(self) -> None:
        """Let the process continue, and return when it runs."""
        assert self._process is not None
        signals.resume(self._process.pid)

    def remove(self) -> None:
        """Stop the process, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *command: str) -> Any:
        """Send a command over a separate connection, and return the raw reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG_S) as connection:
            connection.sendall(_pack(command))
            with connection.makefile("rb") as stream:
                return _read_reply(stream)

    def lose_replies(self) -> None:
        """Kill all connections but those of subscribers. What they have sent is executed first, without a reply.

        Redis handles the commands that are waiting for it in the order of their arrival, and then sends the replies.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG_S) as connection:
            self.freeze()
            time.sleep(_PAUSE_S)  # the others send commands meanwhile, if they have any
            connection.sendall(_pack(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")))
            self.thaw()
            with connection.makefile("rb") as stream:
                _read_reply(stream)

    def _replies_as(self, pid: int) -> bool:
        """Return whether this process replies, and not another one that has taken the port."""
        try:
            return bool(
                self.command("PING") == b"+PONG\r\n" and b"process_id:%d\r\n" % pid in self.command("INFO", "server")
            )
        except OSError:
            return False


def _pack(command: Sequence[str]) -> bytes:
    parts = "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in command)
    return f"*{len(command)}\r\n{parts}".encode()


def _read_reply(stream: BinaryIO) -> bytes:
    """Return the complete bytes of one reply (RESP2)."""
    line = stream.readline()
    kind, size = line[:1], line[1:-2]
    if kind == b"$" and size != b"-1":
        return line + stream.read(int(size) + 2)
    if kind == b"*" and size != b"-1":
        return line + b"".join(_read_reply(stream) for _ in range(int(size)))
    return line
