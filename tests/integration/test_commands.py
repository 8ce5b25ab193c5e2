"""The commands `python -m dws_core listen` and `publish`."""

from __future__ import annotations

import asyncio
import json
import sys

from support.apps import chat
from support.servers import HANG_S, serve


async def _run(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "dws_core", *arguments, stdout=pipe, stderr=pipe)


async def _end(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(HANG_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_listen_prints_published_messages() -> None:
    manager, app = chat()
    async with serve(app) as server:
        listener = await _run("listen", f"{server.url}/ws/ann", "chat/#", "--count", "2")
        async with asyncio.timeout(HANG_S):
            while not manager._runtime.router.receivers("chat/lobby"):
                await manager.publish("elsewhere", "lets the listener come")
        for data in ('{"n": 1}', "plain text"):
            code, out, err = await _end(await _run("publish", f"{server.url}/ws/bo", "chat/lobby", data))
            assert (code, err) == (0, "")
            assert out.startswith("0:")
        code, out, err = await _end(listener)
        assert (code, err) == (0, "")
        lines = [json.loads(line) for line in out.splitlines()]
        assert [(line["topic"], line["data"]) for line in lines] == [
            ("chat/lobby", {"n": 1}),
            ("chat/lobby", "plain text"),
        ]
        assert all(line["pos"].startswith("0:") for line in lines)


async def test_failure_is_printed_and_exits_with_1() -> None:
    _, app = chat(authorize=lambda principal, action, subject: action != "send")
    async with serve(app) as server:
        code, out, err = await _end(await _run("publish", f"{server.url}/ws/bo", "chat/lobby", "x"))
        assert (code, out) == (1, "")
        assert "FAILED" in err
        code, _, err = await _end(await _run("listen", f"{server.url}/ws/bo", "a/#/b"))
        assert code == 1
        assert "#" in err
