"""Nodes in separate processes, which tests may kill."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from support.timeouts import HANG_S
from uvicorn.main import STARTUP_FAILURE

_SCRIPT = Path(__file__).with_name("node_script.py")
_SQLITE = _SCRIPT.parents[2] / "examples/dws_sqlite/src"
_PATH = os.pathsep.join([str(_SCRIPT.parents[1]), str(_SQLITE), os.environ.get("PYTHONPATH", "")])


class NodeProcess:
    """One node. The test owns its socket, so that the address stays reserved when the process ends."""

    def __init__(self, listener: socket.socket, arguments: list[str]) -> None:
        self._listener = listener
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self.url: str = f"ws://127.0.0.1:{listener.getsockname()[1]}"

    @classmethod
    @asynccontextmanager
    async def open(
        cls, broker_url: str, *patches: str, patience_s: float = 0.0, token_s: float = 0.0
    ) -> AsyncIterator[Self]:
        """Create a node that is not started yet, and kill it at the end of the block.

        A start waits up to `patience_s` seconds for the broker. With `token_s`, clients need a token, which expires
        this many seconds after it was checked.
        """
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            options = [f"--patience-s={patience_s}", f"--token-s={token_s}", *(f"--patch={name}" for name in patches)]
            node = cls(listener, [broker_url, *options])
            try:
                yield node
            finally:
                await node.kill()

    async def start(self, *, die_after: int = 0) -> None:
        """Start or restart the node, and return when it serves.

        A node that exits because its broker is unavailable is started again, as a supervisor does.
        """
        async with asyncio.timeout(4 * HANG_S):
            while not await self.launch(die_after=die_after):
                await self.wait_exited()
                assert self.returncode == STARTUP_FAILURE, "the node did not start, see its output"

    async def launch(self, *, die_after: int = 0) -> bool:
        """Start the node once, and return whether it serves. If it does not, it has exited."""
        fd = self._listener.fileno()
        command = [str(_SCRIPT), str(fd), *self._arguments, "--die-after", str(die_after)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            pass_fds=(fd,),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _PATH},
        )
        assert self._process.stdout is not None
        return await self._process.stdout.readline() == b"ready\n"

    @property
    def returncode(self) -> int | None:
        """The exit code, or `None` while the node runs."""
        return None if self._process is None else self._process.returncode

    async def wait_exited(self) -> None:
        """Wait until the process has exited."""
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """Kill the process with SIGKILL, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self.wait_exited()
