"""Replies of the Python client to requests of the application."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.apps import chat
from support.asking import asking
from support.clients import client as reconnecting
from support.servers import HANG_S, serve

from dws_core import NoReply


async def test_python_client_replies() -> None:
    manager, app = chat()
    async with serve(app) as server, reconnecting(f"{server.url}/ws/a") as client:
        client.on_request(lambda data: {"sync": data})
        assert await manager.request("a", 1, timeout_s=HANG_S) == {"sync": 1}

        @client.on_request
        async def later(data: Any) -> Any:
            await client.publish("t", "a handler may use the client")
            return {"async": data}

        assert await manager.request("a", 2, timeout_s=HANG_S) == {"async": 2}


@pytest.mark.parametrize("error", [ValueError, TimeoutError])
async def test_failing_handler_of_python_client_is_logged(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """It does not reply, and answers the next request."""
    manager, app = chat()

    def half(data: Any) -> Any:
        if not data:
            raise error("of the handler itself")
        return {"half": 1 / data}

    async with serve(app) as server, reconnecting(f"{server.url}/ws/a") as client:
        client.on_request(half)
        async with asking(manager.request("a", 0, timeout_s=HANG_S)) as failing:
            assert await manager.request("a", 2, timeout_s=HANG_S) == {"half": 0.5}
            assert not failing.done()
        client.on_request(lambda data: data if data == "ok" else object())
        async with asking(manager.request("a", "no JSON", timeout_s=HANG_S)):
            assert await manager.request("a", "ok", timeout_s=HANG_S) == "ok"
    assert "on_request raised an exception" in caplog.text
    assert "the reply to a request of the node was not accepted: codec" in caplog.text


async def test_slow_handler_of_python_client_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    manager, app = chat()
    cancelled = asyncio.Event()

    async def never(data: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serve(app) as server, reconnecting(f"{server.url}/ws/a") as client:
        client.on_request(never)
        with pytest.raises(NoReply):
            await manager.request("a", timeout_s=0.05)
        await asyncio.wait_for(cancelled.wait(), HANG_S)
        client.on_request(lambda data: data)
        assert await manager.request("a", 1, timeout_s=HANG_S) == 1
    assert "took longer than the 0.05 s" in caplog.text


async def test_python_client_bounds_its_handlers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dws_core.client._answering._MAX_RUNNING", 1)
    manager, app = chat()
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(data: Any) -> Any:
        started.set()
        await go.wait()
        return data

    async with serve(app) as server, reconnecting(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", timeout_s=HANG_S)):
            async with client.inbox() as inbox:
                await manager.send_to("a", "after the request")
                await asyncio.wait_for(anext(inbox), HANG_S)
        assert "there is no on_request" in caplog.text
        client.on_request(slow)
        async with asking(manager.request("a", 1, timeout_s=HANG_S)) as first:
            await asyncio.wait_for(started.wait(), HANG_S)
            async with asking(manager.request("a", 2, timeout_s=HANG_S)) as second, client.inbox() as inbox:
                await manager.send_to("a", "after the request")
                await asyncio.wait_for(anext(inbox), HANG_S)
                go.set()
                assert await first == 1
                assert not second.done()
    assert "1 others are being answered" in caplog.text
