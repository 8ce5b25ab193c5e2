"""The demo, started by its command and used in a browser."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from services.chromium import ARGUMENTS, find_chromium
from support.clients import client
from support.timeouts import HANG_S, progress_timeout
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

APP = Path(__file__).parents[2] / "examples/chat/app.py"


def _load() -> Any:
    """Return the demo, with a broker that no other test has used."""
    spec = importlib.util.spec_from_file_location("chat_example", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.BROKER_URL = f"memory://{secrets.token_hex(8)}"
    return module


def _free_ports() -> tuple[int, int]:
    """Return two adjacent ports that were just free, because each node needs the other's port before it starts."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with suppress(OSError):
                two.bind(("127.0.0.1", port + 1))
                return port, port + 1


def test_the_scripted_exchange_succeeds() -> None:
    run = subprocess.run(
        [sys.executable, str(APP), "--check"], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "The demo works." in run.stdout


@asynccontextmanager
async def _browser() -> AsyncIterator[Any]:
    playwright_api = pytest.importorskip("playwright.async_api", reason="needs playwright: pip install playwright")
    path = find_chromium()
    async with playwright_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


async def _write(page: Any, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


@pytest.mark.browser
async def test_two_windows_on_two_nodes_chat_and_reconnect(tmp_path: Path) -> None:
    demo = _load()
    async with _browser() as browser, demo.serve("A", 0) as node_a:
        async with demo.serve("B", 0) as node_b:
            port_b = node_b.port
            ann = await browser.new_page(viewport={"width": 820, "height": 520})
            bo = await browser.new_page(viewport={"width": 820, "height": 520})
            for page, node, name in ((ann, node_a, "Ann"), (bo, node_b, "Bo")):
                await page.goto(f"http://127.0.0.1:{node.port}/")
                await page.fill("#name", name)
                await page.wait_for_selector("#state[data-state=open]")
            await _write(ann, "Hello from node A")
            await bo.wait_for_selector("#messages li:not(.own) >> text=Hello from node A")
            await _write(bo, "<b>And hello</b> from node B")
            await ann.wait_for_selector("#messages li:not(.own) >> text=<b>And hello</b> from node B")
            await ann.wait_for_selector("#messages li.own:not(.pending) >> text=Hello from node A")
            assert await ann.locator("#messages li").count() == 2
            assert await ann.locator("#messages b").count() == 0
            await ann.screenshot(path=tmp_path / "a.png")
            await bo.screenshot(path=tmp_path / "b.png")

            await bo.click("#rooms >> text=# random")
            await _write(ann, "only in the lobby")
            await bo.wait_for_selector("#rooms .count >> text=1")
            assert await bo.locator("#messages >> text=only in the lobby").count() == 0
            await bo.click("#rooms >> text=# lobby")
            await bo.wait_for_selector("#messages >> text=only in the lobby")

        await bo.wait_for_selector("#state[data-state=waiting]")
        await bo.screenshot(path=tmp_path / "waiting.png")
        await _write(bo, "written while away")
        await bo.wait_for_selector("#messages li.pending >> text=written while away")
        async with demo.serve("B", port_b):
            await bo.wait_for_selector("#state[data-state=open]")
            await ann.wait_for_selector("#messages >> text=written while away")
            assert await ann.locator("#messages >> text=written while away").count() == 1
            await bo.wait_for_selector("#messages li.own:not(.pending) >> text=written while away")


@pytest.mark.browser
async def test_browser_moves_to_other_node_without_loss(tmp_path: Path) -> None:
    demo = _load()
    port_a, port_b = _free_ports()
    a, b = f"127.0.0.1:{port_a}", f"127.0.0.1:{port_b}"
    async with _browser() as browser, demo.serve("A", port_a, B=b):
        async with demo.serve("B", port_b, A=a):
            ann = await browser.new_page(viewport={"width": 820, "height": 520})
            bo = await browser.new_page(viewport={"width": 820, "height": 520})
            for page, host, name in ((ann, a, "Ann"), (bo, b, "Bo")):
                await page.goto(f"http://{host}/")
                await page.fill("#name", name)
                await page.wait_for_selector("#state[data-state=open]")
            await _write(ann, "line 0")
            await bo.wait_for_selector("#messages >> text=line 0")
        for number in range(1, 6):  # node B has stopped, and Bo is not on node A yet
            await _write(ann, f"line {number}")
        await bo.wait_for_selector("#node >> text=node A")
        await bo.wait_for_selector("#messages >> text=line 5")
        await _write(bo, "I am back")
        await ann.wait_for_selector("#messages >> text=I am back")
        texts = await bo.locator("#messages li span:last-child").all_text_contents()
        assert texts == [*(f"line {number}" for number in range(6)), "I am back"], "each once, in order"
        assert await bo.locator("#messages li.hint").count() == 0
        await bo.screenshot(path=tmp_path / "moved.png")


@pytest.mark.parametrize("taken", [0, 1])
def test_busy_port_is_named_without_traceback(taken: int) -> None:
    ports = _free_ports()
    with socket.create_server(("127.0.0.1", ports[taken])):
        ran = _run_demo("--port", str(ports[0]))
    assert (ran.returncode, ran.stdout) == (1, "")
    reason = f"{os.strerror(errno.EADDRINUSE)}. Fix: choose another port with --port"
    assert ran.stderr == f"FAILED  port {ports[taken]} cannot be used: {reason}\n"


@pytest.mark.parametrize("port", ["abc", "0", "65535"])
def test_impossible_port_is_refused(port: str) -> None:
    ran = _run_demo("--port", port)
    assert ran.returncode == 2
    assert f"argument --port: {port!r} is not a port from 1 to 65534" in ran.stderr


def _run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APP), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")
def test_interrupt_ends_the_demo_without_traceback() -> None:
    """Also while a browser is connected."""
    port = _free_ports()[0]
    command = [sys.executable, str(APP), "--port", str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as demo:
        assert demo.stdout is not None
        while "Ctrl-C" not in (line := demo.stdout.readline()):
            assert line, "the demo ended"
        with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as client:
            demo.send_signal(signal.SIGINT)
            out, err = demo.communicate(timeout=HANG_S)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=HANG_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert (demo.returncode, out) == (0, "")
    assert "Traceback" not in err


@pytest.mark.browser
async def test_room_opens_with_past_on_second_node(tmp_path: Path) -> None:
    """One request shows the last messages of a room and follows it. A new room works in the same way."""
    demo = _load()
    async with _browser() as browser, demo.serve("A", 0) as node_a, demo.serve("B", 0) as node_b:
        ann = await browser.new_page(viewport={"width": 820, "height": 520})
        await ann.goto(f"http://127.0.0.1:{node_a.port}/")
        await ann.fill("#name", "Ann")
        await ann.wait_for_selector("#state[data-state=open]")
        for room in ("lobby", "plans"):
            await ann.fill("#room", room)
            await ann.press("#room", "Enter")
            for number in range(1, 61 if room == "plans" else 4):
                await _write(ann, f"{room}, message {number}")
        await ann.wait_for_selector("#messages li.own:not(.pending) >> text=plans, message 60")

        bo = await browser.new_page(viewport={"width": 820, "height": 520})
        await bo.goto(f"http://127.0.0.1:{node_b.port}/")
        await bo.fill("#name", "Bo")
        await bo.wait_for_selector("#messages >> text=lobby, message 3")
        assert await bo.locator("#rooms .count").count() == 0, "the past is not unread"
        await bo.fill("#room", "plans")
        await bo.press("#room", "Enter")
        await bo.wait_for_selector("#messages >> text=plans, message 60")
        await _write(ann, "Welcome, Bo")
        await bo.wait_for_selector("#messages >> text=Welcome, Bo")
        await _write(bo, "Thank you. I have read the last 50 messages.")
        await ann.wait_for_selector("#messages >> text=Thank you")
        await bo.wait_for_selector("#messages li.own:not(.pending) >> text=Thank you")
        texts = await bo.locator("#messages li span:last-child").all_text_contents()
        assert texts[:-2] == [f"plans, message {number}" for number in range(11, 61)], "once, and in order"
        await bo.screenshot(path=tmp_path / "past.png")
        await bo.click("#rooms >> text=# lobby")
        assert await bo.locator("#messages li").count() == 3


def test_typing_node_name_stops_and_starts_it() -> None:
    port = _free_ports()[0]
    with subprocess.Popen(
        [sys.executable, str(APP), "--port", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdin is not None
        assert demo.stdout is not None
        try:
            while "Ctrl-C" not in (line := demo.stdout.readline()):
                assert line, "the demo ended"
            for said in ("node B stops\n", "node B starts\n"):
                demo.stdin.write("b\n")
                demo.stdin.flush()
                assert demo.stdout.readline() == said
        finally:
            demo.terminate()
        assert demo.wait(timeout=HANG_S) == 0


ROOMS = [f"room {number}" for number in range(4)]
LAST = 50  # messages that the page requests
VISIT = """
window.visits = new Map();
const receiveFrame = receive;
receive = (message) => {
  const opened = message.type === "replayed" && [...rooms].find(([, room]) => room.past && room.past.id === message.id);
  receiveFrame(message);
  if (opened && visits.has(opened[0])) visits.get(opened[0]).past = opened[1].messages.length;
  for (const visit of [...visits.values()]) visit.look();
};
const visit = (name, follow) => new Promise((resolve) => {   // shows `follow` messages after the past, and closes the room
  const look = () => {
    if (follow !== null && !(opened.past !== undefined && rooms.get(name).messages.length >= opened.past + follow)) return;
    enter(name);
    const texts = [...document.querySelectorAll("#messages li:not(.hint) span:last-child")].map((item) => item.textContent);
    const gaps = rooms.get(name).messages.filter((message) => message.gap).length;
    visits.delete(name);
    leave(name);
    resolve({past: opened.past, texts, gaps});
  };
  const opened = {look};
  visits.set(name, opened);
  enter(name);
  if (follow === null) look();                               // closes it before the past has arrived
});
window.visitRepeatedly = async (name, follows) => {          // opens the room again as soon as it is closed
  const shown = [];
  for (const follow of follows) shown.push(await visit(name, follow));
  return shown;
};
"""


async def _publish_numbers(room: str, port: int, pages: list[Any], stop: asyncio.Event) -> None:
    """Publish 0, 1, 2, ... to a room as fast as the node allows and the pages show them, until the event is set."""
    async with client(f"ws://127.0.0.1:{port}/ws") as publisher:
        number = 0
        while not stop.is_set():
            await publisher.publish(f"chat/{quote(room)}", {"text": str(number)})
            number += 1
            if number % 20 == 0:
                await asyncio.gather(*(page.evaluate("0") for page in pages))


async def _visit_repeatedly(page: Any, room: str, rng: random.Random, on_progress: Callable[[], None]) -> None:
    """Open a room and close it again, and check what it has shown."""
    seen = -1
    for _ in range(2):
        follows = [rng.choice([None, 0, 1, 20]) for _ in range(5)]
        visits = await page.evaluate("([room, follows]) => visitRepeatedly(room, follows)", [room, follows])
        on_progress()
        for visit in (visit for follow, visit in zip(follows, visits, strict=True) if follow is not None):
            seen = _last_of(visit, seen)


def _last_of(visit: dict[str, Any], seen: int) -> int:
    """Check what a room has shown while it was open, and return its last number. `seen` is that of an earlier visit."""
    numbers, past = [int(text) for text in visit["texts"]], visit["past"]
    first, past_end = (numbers[0], numbers[past - 1]) if past else (0, -1)
    assert numbers == [*range(first, first + len(numbers))], "no hole, no repeat, in order"
    assert first == 0 or past >= LAST, f"a past of {past} messages"
    assert past_end >= seen, f"the past ends at {past_end}, but the room has shown {seen} before"
    assert visit["gaps"] == 0
    return max([seen, *numbers[-1:]])


@pytest.mark.browser
async def test_rooms_opened_and_closed_under_load_have_no_hole() -> None:
    """On two nodes, rooms open with their past and close again, also before it has arrived, while others publish."""
    demo, stop = _load(), asyncio.Event()
    async with _browser() as browser, demo.serve("A", 0) as node_a, demo.serve("B", 0) as node_b:
        pages = [await (await browser.new_context()).new_page() for _ in "AB"]  # each in a process of its own
        for page, node in zip(pages, (node_a, node_b), strict=True):
            await page.goto(f"http://127.0.0.1:{node.port}/")
            await page.wait_for_selector("#state[data-state=open]")
            await page.add_script_tag(content=VISIT)
        async with asyncio.TaskGroup() as publishers, progress_timeout() as on_progress:
            for number, room in enumerate(ROOMS):
                port = (node_a, node_b)[number % 2].port
                publishers.create_task(_publish_numbers(room, port, pages, stop))
            async with asyncio.TaskGroup() as visitors:
                for number, page in enumerate(pages):
                    for room in ROOMS:
                        rng = random.Random(f"{number} {room}")
                        visitors.create_task(_visit_repeatedly(page, room, rng, on_progress))
            stop.set()
