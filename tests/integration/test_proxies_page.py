"""The nginx settings of the docs, run by a real nginx in front of two nodes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme
from services.nginx import find_nginx, running_nginx
from services.redis import free_port
from support.apps import chat
from support.pages import block
from support.servers import Client, Server, serve
from websockets.exceptions import InvalidStatus

TLS, PLAIN = "deploy/tls-and-proxies.md", "../examples/multi_worker/README.md"


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Server, Server]]:
    async with serve(chat("memory://behind-nginx")[1]) as one, serve(chat("memory://behind-nginx")[1]) as two:
        yield one, two


@contextmanager
def tls_proxy(folder: Path, *nodes: Server) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Run the proxy of the page. Yield its origin, and a context that trusts its certificate."""
    find_nginx()
    port, authority, context = free_port(), trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "chat.pem"))
    http = block(TLS, "nginx", "ssl_certificate")
    changes = {"listen 443 ssl": f"listen 127.0.0.1:{port} ssl"}
    changes |= {f"/etc/ssl/chat.{suffix}": str(folder / "chat.pem") for suffix in ("pem", "key")}
    changes |= {f"127.0.0.1:800{number}": address(node) for number, node in enumerate(nodes, 1)}
    with running_nginx(replaced(http, changes), folder, port=port):
        yield f"https://localhost:{port}", context


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def address(node: Server) -> str:
    return node.url.removeprefix("ws://")


async def test_clients_of_tls_proxy_reach_both_nodes(tmp_path: Path) -> None:
    async with two_nodes() as nodes:
        with tls_proxy(tmp_path, *nodes) as (origin, context):
            url = origin.replace("https", "wss")
            async with Client.open(f"{url}/ws/ann", ssl=context, origin=origin) as ann:
                async with Client.open(f"{url}/ws/bo", ssl=context, origin=origin) as bo:
                    await ann.subscribe("chat/#")
                    await bo.publish("chat/lobby", "hello")
                    await ann.assert_received("hello")


async def test_tls_proxy_passes_the_refusal_of_an_origin(tmp_path: Path) -> None:
    async with two_nodes() as nodes:
        with tls_proxy(tmp_path, *nodes) as (origin, context):
            url = origin.replace("https", "wss")
            with pytest.raises(InvalidStatus) as refused:
                async with Client.open(f"{url}/ws/ann", ssl=context, origin="https://evil.example"):
                    pass
            assert refused.value.response.status_code == 403


async def test_plain_proxy_of_multi_worker_example_works(tmp_path: Path) -> None:
    find_nginx()
    port = free_port()
    async with two_nodes() as (node, _):
        changes = {"listen 80": f"listen 127.0.0.1:{port}", "127.0.0.1:8000": address(node)}
        with running_nginx(replaced(block(PLAIN, "nginx", "proxy_pass"), changes), tmp_path, port=port):
            async with Client.open(f"ws://127.0.0.1:{port}/ws/ann", origin=f"http://127.0.0.1:{port}") as ann:
                await ann.subscribe("chat/#")
                await ann.publish("chat/lobby", "hello")
                await ann.assert_received("hello")
