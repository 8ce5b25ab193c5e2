"""Which uvicorn server gets the protocol class that sends ready frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from dws_core import ConfigurationError, _uvicorn
from dws_core._node.stats import Counters
from dws_core.server import HTTPProtocol, WebSocketProtocol


@asynccontextmanager
async def lifespan(
    ws: Any = "auto", *, http: Any = "auto", calls: bool = True
) -> AsyncIterator[tuple[uvicorn.Config, list[bool]]]:
    """Run a lifespan as uvicorn does. It calls `adapt_server` itself, and collects the result."""
    results: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if calls:
            results.append(_uvicorn.adapt_server())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    config = uvicorn.Config(app, ws=ws, http=http, lifespan="on")
    served = LifespanOn(config)
    await served.startup()
    yield config, results
    await served.shutdown()


async def test_automatic_class_is_replaced() -> None:
    async with lifespan() as (config, results):
        assert results == [True]
        assert (config.ws_protocol_class, config.http_protocol_class) == (WebSocketProtocol, HTTPProtocol)


async def test_explicit_http_class_is_kept() -> None:
    async with lifespan(http="h11") as (config, results):
        assert results == [True]
        assert config.http_protocol_class is H11Protocol


@pytest.mark.parametrize("ws", ["none", "wsproto", "websockets-sansio", WebSocketProtocol])
async def test_chosen_class_is_kept(ws: Any) -> None:
    async with lifespan(ws) as (config, results):
        assert results == [False]
        assert config.ws_protocol_class is not AutoWebSocketsProtocol or ws == "websockets-sansio"


async def test_second_manager_of_a_server_changes_nothing() -> None:
    async with lifespan() as (config, _):
        assert _uvicorn.adapt_server() is False
        assert config.ws_protocol_class is WebSocketProtocol


async def test_other_task_uses_the_only_server() -> None:
    async with lifespan(calls=False) as (config, _):
        assert await asyncio.get_running_loop().create_task(_in_task()) is True
        assert config.ws_protocol_class is WebSocketProtocol


async def test_other_task_leaves_several_servers_alone() -> None:
    async with lifespan(calls=False) as (first, _), lifespan(calls=False) as (second, _):
        assert _uvicorn.adapt_server() is False
        assert {first.ws_protocol_class, second.ws_protocol_class} == {AutoWebSocketsProtocol}


async def _in_task() -> bool:
    return _uvicorn.adapt_server()


async def test_task_without_uvicorn_finds_no_server() -> None:
    assert _uvicorn.serving_config() is None
    assert _uvicorn.adapt_server() is False


async def test_old_uvicorn_keeps_its_class(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: str) -> None:
        raise ConfigurationError("uvicorn 0.40 is installed.", fix="update it")

    monkeypatch.setattr(_uvicorn, "import_from_string", refuse)
    with caplog.at_level("INFO", "dws"):
        async with lifespan() as (config, results):
            assert results == [False]
            assert (config.ws_protocol_class, config.http_protocol_class) == (AutoWebSocketsProtocol, AutoHTTPProtocol)
    assert "uvicorn keeps its own protocol classes: uvicorn 0.40 is installed." in caplog.text


async def test_refusals_count_for_nodes_of_their_server() -> None:
    """A node that starts twice counts them once."""
    counters, other = Counters(), Counters()
    async with lifespan(calls=False) as (config, _):
        for _ in range(2):
            _uvicorn.join_server(counters, adapts=False)
        _uvicorn.count_refusal(config)
        assert (counters.refused, other.refused) == ({"application": 1}, {})
        assert config.ws_protocol_class is AutoWebSocketsProtocol
        _uvicorn.join_server(other, adapts=True)
        assert config.ws_protocol_class is WebSocketProtocol
    _uvicorn.join_server(other, adapts=True)
    _uvicorn.count_refusal(uvicorn.Config(None))
    assert other.refused == {}
