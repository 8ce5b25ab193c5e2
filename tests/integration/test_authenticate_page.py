"""The page on authentication, followed literally: its two files, in a browser."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from services.chromium import ARGUMENTS, find_chromium
from support.pages import block
from support.server_process import ServerProcess
from support.timeouts import HANG_S

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX"),
]

PAGE = "how-to/authenticate.md"
UVICORN = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
LONG, SHORT = "TOKEN_S = 900", "TOKEN_S = 5"
"""A token is valid 10 s after its expiry, so the short one lives for 15 s."""


async def sign_in(browser: Any, address: str, name: str, password: str) -> Any:
    window = await (await browser.new_context()).new_page()
    await window.goto(f"http://{address}/")
    await window.fill("#name", name)
    await window.fill("#password", password)
    await window.click("#login button")
    return window


async def shows(window: Any, text: str) -> None:
    await window.wait_for_selector(f"text={text}", timeout=HANG_S * 1000)


@pytest.mark.browser
async def test_users_sign_in_renew_and_sign_out_everywhere(tmp_path: Path) -> None:
    playwright_api = pytest.importorskip("playwright.async_api", reason="needs playwright: pip install playwright")
    path = find_chromium()
    app = block(PAGE, "python", "app = FastAPI")
    assert LONG in app
    (tmp_path / "app.py").write_text(app.replace(LONG, SHORT))
    (tmp_path / "page.html").write_text(block(PAGE, "html", "<!doctype html>"))
    with ServerProcess.open(UVICORN, tmp_path) as server:
        await asyncio.to_thread(server.printed, "Application startup complete")
        async with playwright_api.async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            stranger = await sign_in(browser, server.address, "ann", "guess")
            await shows(stranger, "/token was refused with 401")
            ann = await sign_in(browser, server.address, "ann", "wonderland")
            phone = await sign_in(browser, server.address, "ann", "wonderland")
            bo = await sign_in(browser, server.address, "bo", "peep")
            for window in (ann, phone, bo):
                await shows(window, "token renewed")
            await bo.fill("#text", "<b>Hello</b>")
            await bo.click("#chat button >> text=Send")
            for window in (ann, phone, bo):
                await shows(window, "bo: <b>Hello</b>")
            await phone.click("#logout")
            for window in (ann, phone):
                await shows(window, "signed out")
            await ann.reload()
            await bo.fill("#text", "still here")
            await bo.click("#chat button >> text=Send")
            await shows(bo, "bo: still here")
            await bo.evaluate("token = 'expired'; socket.close()")
            await shows(bo, "/renew was refused with 401")
            assert await bo.is_visible("#password")
            await browser.close()
