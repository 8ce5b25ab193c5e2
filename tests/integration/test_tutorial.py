"""The tutorial, followed literally: its files, its commands, and its page in a browser."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from services.chromium import ARGUMENTS, find_chromium
from services.redis import PrivateRedis
from support.pages import block
from support.server_process import ServerProcess
from support.timeouts import HANG_S

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")

PAGE = "tutorial.md"
UVICORN = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
WORKERS = ["--workers", "2", "--timeout-worker-healthcheck", "300"]
STARTED = "Application startup complete"
ONE_NODE, MANY_NODES = 'broker_url="memory://"', 'broker_url="redis://localhost:6379/0"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the reader, with both files of the page."""
    (tmp_path / "app.py").write_text(block(PAGE, "python", "app = FastAPI"))
    (tmp_path / "page.html").write_text(block(PAGE, "html", "<!doctype html>"))
    return tmp_path


@asynccontextmanager
async def two_windows(address: str) -> AsyncIterator[list[Any]]:
    """Open the page in two windows, and wait until both are subscribed."""
    playwright_api = pytest.importorskip("playwright.async_api", reason="needs playwright: pip install playwright")
    path = find_chromium()
    async with playwright_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield [await open_window(browser, address) for _ in range(2)]
        await browser.close()


async def open_window(browser: Any, address: str) -> Any:
    """Open the page, and wait for the reply to its subscription."""
    subscribed = asyncio.Event()
    window = await browser.new_page(viewport={"width": 480, "height": 260})
    window.on("websocket", lambda socket: socket.on("framereceived", lambda _: subscribed.set()))
    await window.goto(f"http://{address}/")
    async with asyncio.timeout(HANG_S):
        await subscribed.wait()
    return window


async def write(window: Any, text: str) -> None:
    await window.fill("#text", text)
    await window.click("button")


async def shows(window: Any, text: str) -> None:
    await window.wait_for_selector(f"#messages li >> text={text}", timeout=HANG_S * 1000)


def post(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=HANG_S).close()


@pytest.mark.browser
async def test_two_windows_chat_and_read_an_announcement(folder: Path) -> None:
    with ServerProcess.open(UVICORN, folder) as server:
        await asyncio.to_thread(server.printed, STARTED)
        async with two_windows(server.address) as (one, two):
            await write(one, "Hello")
            await shows(two, "chat/lobby: Hello")
            await write(two, "<b>Hello, too</b>")
            await shows(one, "chat/lobby: <b>Hello, too</b>")
            url = f"http://{server.address}/announce?text=closing+time"
            await asyncio.to_thread(post, url)
            for window in (one, two):
                await shows(window, "chat/lobby: closing time")
                assert await window.locator("#messages li").count() == 3


@pytest.mark.browser
async def test_windows_of_two_workers_share_one_chat(folder: Path, redis: PrivateRedis) -> None:
    app = folder / "app.py"
    assert MANY_NODES in block(PAGE, "python", "redis://")
    app.write_text(app.read_text().replace(ONE_NODE, f'broker_url="{redis.url}"'))
    with ServerProcess.open([*UVICORN, *WORKERS], folder) as server:
        await asyncio.to_thread(server.printed, STARTED, 2)
        async with two_windows(server.address) as (one, two):
            await write(one, "Hello")
            await shows(one, "chat/lobby: Hello")
            await shows(two, "chat/lobby: Hello")
