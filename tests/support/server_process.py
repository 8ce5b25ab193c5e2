"""A web server in a process of its own, with its output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from support.timeouts import HANG_S

_ADDRESS = r"http://127\.0\.0\.1:([1-9]\d*)"


class ServerProcess:
    """A running server. It has a process group of its own, so that its workers end with it."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._text, self._ended, self._news = "", False, threading.Condition()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @classmethod
    @contextmanager
    def open(cls, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Self]:
        """Start a server, and stop it at the end of the block, by force if necessary."""
        server = cls(command, folder, env or {})
        try:
            yield server
        finally:
            server.end()

    def end(self) -> None:
        """Stop the server as a supervisor does."""
        self.process.terminate()
        try:
            self.process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        finally:
            self._reader.join(HANG_S)

    def printed(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until a pattern was printed this many times, and return its matches. Each new line extends the wait."""

        def enough() -> bool:
            return self._ended or len(re.findall(pattern, self._text)) >= times

        with self._news:
            while not enough() and self._news.wait(HANG_S):
                pass
            found = re.findall(pattern, self._text)
            assert len(found) >= times, f"no {pattern!r}, {times} times, in:\n{self._text}"
            return found

    @property
    def output(self) -> str:
        """What the server has printed."""
        return self._text

    @property
    def address(self) -> str:
        """Host and port of the server, once it has printed them."""
        return f"127.0.0.1:{self.printed(_ADDRESS)[0]}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self._text += line
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
