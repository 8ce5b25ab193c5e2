"""The commands `python -m dws_core listen` and `publish`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from support.apps import chat
from support.servers import HANG_S, serve

from dws_core import Principal


async def _run(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    pipe, env = asyncio.subprocess.PIPE, {**os.environ, **environment}
    command = [sys.executable, "-m", "dws_core", *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=env)


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


async def _fails(*arguments: str, **environment: str) -> str:
    code, out, err = await _end(await _run(*arguments, **environment))
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    return err


async def test_reasons_of_a_failed_connection_are_told_apart() -> None:
    _, app = chat(
        authenticator="oauth2-bearer", verify_token=lambda token: Principal(id="ann") if token == "t" else None
    )
    async with serve(app) as server:
        assert "for /nowhere was refused with HTTP 403. Fix: check the path" in await _fails(
            "listen", f"{server.url}/nowhere", "t", "--token", "t"
        )
        refused = "for /ws/a was refused with HTTP 401. Fix: check the token"
        assert refused in await _fails("listen", f"{server.url}/ws/a", "t", "--token", "wrong")
        assert refused in await _fails("publish", f"{server.url}/ws/a", "t", "1", DWS_TOKEN="wrong")
        code, out, _ = await _end(await _run("publish", f"{server.url}/ws/a", "t", "1", DWS_TOKEN="t"))
        assert (code, out.startswith("0:")) == (0, True)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    assert f"FAILED  cannot connect to {address}: Connection refused. Fix:" in await _fails(
        "listen", f"ws://{address}/ws", "t"
    )
    assert "cannot connect to no-such-host.invalid" in await _fails("listen", "ws://no-such-host.invalid/ws", "t")


async def test_malformed_json_is_refused_unless_it_is_text() -> None:
    _, app = chat()
    async with serve(app) as server:
        url = f"{server.url}/ws/a"
        for arguments in (("{bad json",), ("[1", "--json"), ("plain", "--json"), ("NaN", "--json")):
            assert "not valid JSON" in await _fails("publish", url, "t", *arguments)
        for arguments in (("{bad json", "--text"), ("plain",), ("1",), ("{}", "--json")):
            code, _, err = await _end(await _run("publish", url, "t", *arguments))
            assert (code, err) == (0, "")


async def test_count_of_zero_ends_at_once() -> None:
    _, app = chat()
    async with serve(app) as server:
        assert await _end(await _run("listen", f"{server.url}/ws/a", "t", "--count", "0")) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")
@pytest.mark.parametrize(
    "arguments", [["doctor", "redis://{}"], ["publish", "ws://{}/ws", "t", "1"], ["listen", "ws://{}/ws", "t"]]
)
async def test_interrupt_ends_without_traceback(arguments: list[str]) -> None:
    """The server accepts the connection and never answers."""
    connected, writers = asyncio.Event(), []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        connected.set()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        process = await _run(*(argument.format(f"{host}:{port}") for argument in arguments))
        async with asyncio.timeout(HANG_S):
            await connected.wait()
        process.send_signal(signal.SIGINT)
        code, _, err = await _end(process)
        for writer in writers:
            writer.close()
    assert code == (0 if arguments[0] == "listen" else 130)
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["plugins"], ["doctor", "memory://"]])
def test_closed_output_ends_without_traceback(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "dws_core", *arguments]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "BrokenPipeError" not in ran.stderr


async def test_wrong_count_is_explained() -> None:
    code, _, err = await _end(await _run("listen", "ws://h/ws", "t", "--count=-1x"))
    assert code == 2
    assert "'-1x' is not a number of messages" in err
