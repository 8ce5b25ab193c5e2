"""The gateway example, in front of a real node."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from support.apps import chat
from support.servers import Client, serve

APP = Path(__file__).parents[2] / "examples/gateway/app.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("gateway_example", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


async def test_chat_works_through_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    _, app = chat()
    async with serve(app) as upstream:
        monkeypatch.setenv("CHAT_URL", f"{upstream.url}/ws/a")
        async with serve(_load()) as front, Client.open(f"{front.url}/ws", subprotocols=["dws.v1.json"]) as client:
            assert client.socket.subprotocol == "dws.v1.json"
            await client.subscribe("t")
            await client.send(type="send", topic="t", data="through")
            assert (await client.receive())["data"] == "through"
