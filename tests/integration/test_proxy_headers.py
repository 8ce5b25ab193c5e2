"""The headers that the proxy sends upstream."""

from __future__ import annotations

from typing import Any

import pytest
from support.proxies import (
    Gateway,
    Upstream,
    behind_gateway,
    echo,
    gateway_to,
    open_client,
    url_of,
)
from support.servers import serve
from websockets.asyncio.server import serve as serve_websockets


async def _seen(client: dict[str, str], *, scheme: str = "ws", **options: Any) -> dict[str, list[str]]:
    """Return the headers that the upstream receives for the given headers of the client."""
    upstream = Upstream()
    async with behind_gateway(upstream, gateway=options) as (url, _):
        async with open_client(url, additional_headers=client, user_agent_header=None):
            request = (await upstream.connection()).request
            assert request is not None
            return {name.lower(): request.headers.get_all(name) for name in request.headers}


async def test_default_headers_exclude_credentials() -> None:
    """The client's WebSocket headers are not sent either."""
    sent = {
        "Authorization": "Bearer t",
        "Cookie": "s=1",
        "X-Api-Key": "k",
        "Proxy-Authorization": "p",
        "User-Agent": "me",
    }
    seen = await _seen(sent)
    for absent in ["authorization", "cookie", "x-api-key", "proxy-authorization", "sec-websocket-extensions"]:
        assert absent not in seen
    assert seen["user-agent"] == ["me"]
    assert seen["sec-websocket-version"] == ["13"]
    assert len(seen["sec-websocket-key"]) == 1


async def test_chosen_headers_are_forwarded() -> None:
    sent = {"Authorization": "Bearer t", "Cookie": "s=1; t=2", "X-Request-Id": "7"}
    seen = await _seen(sent, forward_headers=["Authorization", "cookie", "x-request-id", "x-absent"])
    assert seen["authorization"] == ["Bearer t"]
    assert seen["cookie"] == ["s=1; t=2"]
    assert seen["x-request-id"] == ["7"]
    assert "x-absent" not in seen
    assert "user-agent" not in seen


async def test_origin_is_always_forwarded() -> None:
    assert (await _seen({"Origin": "https://evil.example"}, forward_headers=[]))["origin"] == ["https://evil.example"]


async def test_forwarded_headers_are_rewritten() -> None:
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}
    names = [*lies, "user-agent"]
    # uvicorn trusts 127.0.0.1 by default. It does not trust clients from other addresses.
    upstream = Upstream()
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        front = Gateway(url_of(server), forward_headers=names)
        async with serve(front.app, proxy_headers=False) as running:
            host = running.url.removeprefix("ws://")
            async with open_client(f"{running.url}/ws", additional_headers=lies):
                request = (await upstream.connection()).request
    assert request is not None
    assert request.headers.get_all("X-Forwarded-For") == ["127.0.0.1"]
    assert request.headers.get_all("X-Forwarded-Proto") == ["http"]
    assert request.headers.get_all("X-Forwarded-Host") == [host]


async def test_extra_headers_override_all_others() -> None:
    extra = {"X-User": "ann", "Origin": "https://gateway.example", "X-Forwarded-For": "10.0.0.1"}
    seen = await _seen(
        {"X-User": "mallory", "Origin": "https://evil.example"}, forward_headers=["x-user"], extra_headers=extra
    )
    assert seen["x-user"] == ["ann"]
    assert seen["origin"] == ["https://gateway.example"]
    assert seen["x-forwarded-for"] == ["10.0.0.1"]


async def test_url_credentials_are_sent_upstream() -> None:
    upstream = Upstream()
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        async with gateway_to(url_of(server).replace("//", "//ann:pw@")) as (url, _), open_client(url):
            request = (await upstream.connection()).request
    assert request is not None
    assert request.headers["Authorization"] == "Basic YW5uOnB3"


@pytest.mark.parametrize("compression", [True, False])
async def test_compression_is_offered_only_if_enabled(compression: bool) -> None:
    upstream = Upstream()
    async with (
        behind_gateway(upstream, gateway={"compression": compression}, compression="deflate") as (url, _),
        open_client(url),
    ):
        assert bool((await upstream.connection()).protocol.extensions) is compression


async def test_environment_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "all_proxy"]:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with behind_gateway(echo) as (url, _), open_client(url) as client:
        await client.send("direct")
        assert await client.recv() == "direct"
