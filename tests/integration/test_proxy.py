"""The proxy at its edges: every way either side can leave, refuse, stall or lie. `test_proxy_basics.py` has the plain ways."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import logging
import random
import socket as sockets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI, WebSocket
from support.servers import HANG_S, serve
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from dws_core import ConfigurationError, WebSocketProxy
from dws_core._proxy import _client_left, _close, _is_sendable, _masked

CHUNK = 65_536
BOUND = (
    48 * 1_048_576
)  # above what the sockets' buffers of three connections hold, far below what a second of sending makes

Handler = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    """Fail the test if it leaves a task behind."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    left = {task for task in left if "TestRunner" not in repr(task.get_coro())}  # what runs this fixture itself
    if left:
        _, left = await asyncio.wait(left, timeout=1.0)
    assert not left


class Gateway:
    """An application with one proxied endpoint, which tells when its call has returned."""

    def __init__(self, endpoint: str, *, accept: bool = False, accepted: str | None = None, **options: Any) -> None:
        self.app = FastAPI()
        self.ended = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None
        self.failure: BaseException | None = None

        @self.app.websocket("/ws")
        async def proxy(websocket: WebSocket) -> None:
            self.task = asyncio.current_task()
            try:
                if accept:
                    await websocket.accept(subprotocol=accepted)
                await WebSocketProxy(websocket, endpoint, **options)()
            except BaseException as failure:
                self.failure = failure
                raise
            finally:
                self.ended.set()

    async def wait_ended(self) -> None:
        async with asyncio.timeout(HANG_S):
            await self.ended.wait()


class Upstream:
    """A handler that keeps its connections and how they were closed."""

    def __init__(self, handler: Handler | None = None) -> None:
        self._handler = handler
        self.connected: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[Close | None] = asyncio.get_running_loop().create_future()

    async def __call__(self, socket: ServerConnection) -> None:
        self.connected.set_result(socket)
        try:
            if self._handler is not None:
                await self._handler(socket)
            while True:
                await socket.recv()
        except ConnectionClosed as closed:
            self.closed.set_result(closed.rcvd)

    async def connection(self) -> ServerConnection:
        async with asyncio.timeout(HANG_S):
            return await self.connected

    async def close(self) -> Close | None:
        async with asyncio.timeout(HANG_S):
            return await self.closed


def _url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def _behind(
    handler: Handler, *, gateway: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[tuple[str, Gateway]]:
    """Serve the handler and a gateway in front of it; yield where clients connect, and the gateway."""
    settings = {"close_timeout": 0.5, "compression": None, **server}
    async with serve_websockets(handler, "127.0.0.1", 0, **settings) as upstream:
        front = Gateway(_url(upstream), **(gateway or {}))
        async with serve(front.app) as running:
            yield f"{running.url}/ws", front


@asynccontextmanager
async def _before(endpoint: str, **options: Any) -> AsyncIterator[tuple[str, Gateway]]:
    """Serve a gateway in front of an upstream that is none."""
    front = Gateway(endpoint, **options)
    async with serve(front.app) as running:
        yield f"{running.url}/ws", front


def _open(url: str, **options: Any) -> connect:
    return connect(url, **{"proxy": None, "close_timeout": 2.0, **options})


async def _closed(client: ClientConnection) -> Close:
    """Wait until the client is told of the end."""
    async with asyncio.timeout(HANG_S):
        with pytest.raises(ConnectionClosed) as closed:
            await _read_all(client)
    assert closed.value.rcvd is not None, "the connection was cut instead of closed"
    return closed.value.rcvd


async def _read_all(client: ClientConnection) -> None:
    while True:
        await client.recv()


async def _flood(socket: ClientConnection | ServerConnection) -> None:
    while True:
        await socket.send(bytes(CHUNK))


async def _denied(url: str, **options: Any) -> Response:
    async with asyncio.timeout(HANG_S):
        with pytest.raises(InvalidStatus) as refused:
            await _open(url, **options)
    return refused.value.response


async def _echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


# Messages


@pytest.mark.parametrize("accept", [True, False])
async def test_a_mix_of_text_and_binary_of_all_sizes_comes_back_as_it_was(accept: bool) -> None:
    dice = random.Random(7)
    messages: list[str | bytes] = []
    for size in [0, 0, 1, 125, 126, 65_535, 65_536, 524_288, *(dice.randrange(300) for _ in range(100))]:
        messages.append("ü" * (size // 2) if dice.random() < 0.5 else dice.randbytes(size))

    async with _behind(_echo, gateway={"accept": accept}) as (url, _), _open(url) as client:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send_all(client, messages))
            received = [await client.recv() for _ in messages]
        assert sending.done()
    assert received == messages


async def _send_all(client: ClientConnection, messages: list[str | bytes]) -> None:
    for message in messages:
        await client.send(message)


async def test_a_fragmented_message_arrives_whole_either_way() -> None:
    async def answer(socket: ServerConnection) -> None:
        assert await socket.recv() == "one two"
        await socket.send(["th", "re", "", "e"])
        assert await socket.recv() == b"12"
        await socket.send([b"3", b"4"])

    async with _behind(answer) as (url, _), _open(url) as client:
        await client.send(["one ", "two"])
        assert await client.recv() == "three"
        await client.send([b"1", b"2"])
        assert await client.recv() == b"34"


async def test_messages_sent_before_a_close_arrive_before_it() -> None:
    async def talk(socket: ServerConnection) -> None:
        for number in range(200):
            await socket.send(str(number))
        await socket.close(4000, "done")

    async with _behind(talk) as (url, _), _open(url) as client:
        await client.send("in between")
        assert [await client.recv() for _ in range(200)] == [str(number) for number in range(200)]
        assert await _closed(client) == Close(4000, "done")


async def test_messages_sent_before_the_client_closes_reach_the_upstream() -> None:
    got: list[str | bytes] = []

    async def collect(socket: ServerConnection) -> None:
        async for message in socket:
            got.append(message)

    upstream = Upstream(collect)
    async with _behind(upstream) as (url, front):
        async with _open(url) as client:
            for number in range(200):
                await client.send(str(number))
        await front.wait_ended()
    assert got == [str(number) for number in range(200)]


@pytest.mark.parametrize("message", ["x" * 1_001, b"x" * 1_001, "é" * 501])
async def test_a_clients_message_over_the_limit_ends_with_1009(message: str | bytes) -> None:
    upstream = Upstream()
    async with _behind(upstream, gateway={"max_message_bytes": 1_000}) as (url, front), _open(url) as client:
        await client.send(message)
        assert (await _closed(client)).code == 1009
        assert (await upstream.close()) == Close(1001, "")
        await front.wait_ended()


async def test_an_upstreams_message_over_the_limit_ends_with_1009() -> None:
    async def shout(socket: ServerConnection) -> None:
        await socket.send("x" * 1_000)
        await socket.send("x" * 1_001)

    upstream = Upstream(shout)
    async with _behind(upstream, gateway={"max_message_bytes": 1_000}) as (url, front), _open(url) as client:
        assert len(await client.recv()) == 1_000
        assert (await _closed(client)).code == 1009
        assert (await upstream.close() or Close(0, "")).code == 1009
        await front.wait_ended()


# Subprotocols


def _names(*names: str) -> list[Subprotocol]:
    return [Subprotocol(name) for name in names]


async def test_no_subprotocol_is_agreed_where_the_upstream_wants_none() -> None:
    async with _behind(_echo) as (url, _), _open(url, subprotocols=_names("a")) as client:
        assert client.subprotocol is None


async def test_a_mapping_translates_subprotocols_both_ways() -> None:
    upstream = Upstream()
    mapping = {"chat.v2": "internal-2", "chat.v1": "internal-1"}
    settings = {"subprotocols": _names("internal-1", "chat.v1")}
    async with _behind(upstream, gateway={"subprotocols": mapping}, **settings) as (url, _):
        async with _open(url, subprotocols=_names("other", "chat.v1", "chat.v2")) as client:
            assert client.subprotocol == "chat.v1"
            request = (await upstream.connection()).request
            assert request is not None
            assert request.headers["Sec-WebSocket-Protocol"] == "internal-1, internal-2"


async def test_an_endpoint_that_accepted_with_a_subprotocol_names_it_for_the_upstream() -> None:
    upstream = Upstream()
    options = {"accept": True, "accepted": "b", "subprotocols": ["b"]}
    async with _behind(upstream, gateway=options, subprotocols=_names("a", "b")) as (url, _):
        async with _open(url, subprotocols=_names("a", "b")) as client:
            assert client.subprotocol == "b"
            assert (await upstream.connection()).subprotocol == "b"


async def test_after_an_accept_without_a_subprotocol_none_is_asked_for() -> None:
    upstream = Upstream()
    async with _behind(upstream, gateway={"accept": True}, subprotocols=_names("a")) as (url, _):
        async with _open(url, subprotocols=_names("a")) as client:
            assert client.subprotocol is None
            request = (await upstream.connection()).request
            assert request is not None
            assert "Sec-WebSocket-Protocol" not in request.headers


async def test_an_upstream_that_lacks_the_accepted_subprotocol_ends_with_1014() -> None:
    options = {"accept": True, "accepted": "b", "subprotocols": ["b"]}
    async with _behind(Upstream(), gateway=options) as (url, front):
        async with _open(url, subprotocols=_names("b")) as client:
            assert await _closed(client) == Close(1014, "the upstream does not speak the subprotocol")
        await front.wait_ended()


async def test_an_upstream_that_picks_a_subprotocol_nobody_offered_is_refused() -> None:
    def pick(_: ServerConnection, __: object) -> Subprotocol:
        return Subprotocol("mine")

    async with _behind(_echo, select_subprotocol=pick) as (url, _):
        denied = await _denied(url, subprotocols=_names("yours"))
    assert denied.status_code == 502


# Headers


async def _seen(client: dict[str, str], *, scheme: str = "ws", **options: Any) -> dict[str, list[str]]:
    """Return the headers that the upstream gets for these of the client."""
    upstream = Upstream()
    async with _behind(upstream, gateway=options) as (url, _):
        async with _open(url, additional_headers=client, user_agent_header=None):
            request = (await upstream.connection()).request
            assert request is not None
            return {name.lower(): request.headers.get_all(name) for name in request.headers}


async def test_by_default_no_credentials_and_no_websocket_headers_go_upstream() -> None:
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


async def test_chosen_headers_go_upstream() -> None:
    sent = {"Authorization": "Bearer t", "Cookie": "s=1; t=2", "X-Request-Id": "7"}
    seen = await _seen(sent, forward_headers=["Authorization", "cookie", "x-request-id", "x-absent"])
    assert seen["authorization"] == ["Bearer t"]
    assert seen["cookie"] == ["s=1; t=2"]
    assert seen["x-request-id"] == ["7"]
    assert "x-absent" not in seen
    assert "user-agent" not in seen


async def test_the_origin_always_goes_upstream() -> None:
    assert (await _seen({"Origin": "https://evil.example"}, forward_headers=[]))["origin"] == ["https://evil.example"]


async def test_forwarded_headers_are_written_anew() -> None:
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}
    names = [*lies, "user-agent"]
    # uvicorn believes 127.0.0.1 by itself; a client from elsewhere has no say.
    upstream = Upstream()
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        front = Gateway(_url(server), forward_headers=names)
        async with serve(front.app, proxy_headers=False) as running:
            async with _open(f"{running.url}/ws", additional_headers=lies):
                request = (await upstream.connection()).request
    assert request is not None
    assert request.headers.get_all("X-Forwarded-For") == ["127.0.0.1"]
    assert request.headers.get_all("X-Forwarded-Proto") == ["http"]
    assert request.headers.get_all("X-Forwarded-Host") == [running.url.removeprefix("ws://")]


async def test_extra_headers_win_over_all_others() -> None:
    extra = {"X-User": "ann", "Origin": "https://gateway.example", "X-Forwarded-For": "10.0.0.1"}
    seen = await _seen(
        {"X-User": "mallory", "Origin": "https://evil.example"}, forward_headers=["x-user"], extra_headers=extra
    )
    assert seen["x-user"] == ["ann"]
    assert seen["origin"] == ["https://gateway.example"]
    assert seen["x-forwarded-for"] == ["10.0.0.1"]


async def test_the_urls_own_credentials_go_upstream() -> None:
    upstream = Upstream()
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        async with _before(_url(server).replace("//", "//ann:pw@")) as (url, _), _open(url):
            request = (await upstream.connection()).request
    assert request is not None
    assert request.headers["Authorization"] == "Basic YW5uOnB3"


@pytest.mark.parametrize("compression", [True, False])
async def test_compression_is_offered_upstream_only_when_asked_for(compression: bool) -> None:
    upstream = Upstream()
    async with _behind(upstream, gateway={"compression": compression}, compression="deflate") as (url, _), _open(url):
        assert bool((await upstream.connection()).protocol.extensions) is compression


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "all_proxy"]:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with _behind(_echo) as (url, _), _open(url) as client:
        await client.send("direct")
        assert await client.recv() == "direct"


# Ends


@pytest.mark.parametrize(("sent", "seen"), [(1000, 1000), (1001, 1001), (1011, 1011), (3000, 3000), (4999, 4999)])
async def test_a_clients_close_code_reaches_the_upstream(sent: int, seen: int) -> None:
    upstream = Upstream()
    async with _behind(upstream) as (url, front):
        async with _open(url) as client:
            await client.close(sent, "reason ✓")
        assert await upstream.close() == Close(seen, "reason ✓")
        await front.wait_ended()


@pytest.mark.parametrize("code", [1000, 1008, 1012, 1013, 4001, 4503])
@pytest.mark.parametrize("accept", [True, False])
async def test_an_upstreams_close_code_reaches_the_client(accept: bool, code: int) -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close(code, "z" * 120 + "✓")

    async with _behind(leave, gateway={"accept": accept}) as (url, front), _open(url) as client:
        assert await _closed(client) == Close(code, "z" * 120 + "✓")
        await front.wait_ended()


async def test_a_close_without_a_code_is_1000_for_the_upstream() -> None:
    upstream = Upstream()
    async with _behind(upstream) as (url, front), _open(url) as client:
        async with client.send_context():
            client.protocol.send_close()
        assert await upstream.close() == Close(1000, "")
        await front.wait_ended()


async def test_a_close_without_a_code_is_1000_for_the_client() -> None:
    async def leave(socket: ServerConnection) -> None:
        async with socket.send_context():
            socket.protocol.send_close()

    async with _behind(leave) as (url, front), _open(url) as client:
        assert await _closed(client) == Close(1000, "")
        await front.wait_ended()


async def test_a_client_that_vanishes_is_1001_for_the_upstream() -> None:
    upstream = Upstream()
    async with _behind(upstream) as (url, front):
        client = await _open(url)
        client.transport.abort()
        assert await upstream.close() == Close(1001, "the client's connection was lost")
        await front.wait_ended()
        await client.wait_closed()


async def test_an_upstream_that_vanishes_is_1014_for_the_client() -> None:
    upstream = Upstream()
    async with _behind(upstream) as (url, front), _open(url) as client:
        (await upstream.connection()).transport.abort()
        assert await _closed(client) == Close(1014, "the upstream connection was lost")
        await front.wait_ended()


async def test_both_sides_may_vanish_at_once() -> None:
    upstream = Upstream()
    async with _behind(upstream) as (url, front):
        client = await _open(url)
        server = await upstream.connection()
        client.transport.abort()
        server.transport.abort()
        await front.wait_ended()
        await client.wait_closed()
    assert front.failure is None


async def test_a_client_that_vanishes_while_the_upstream_floods_is_noticed() -> None:
    upstream = Upstream(_flood)
    async with _behind(upstream) as (url, front):
        client = await _open(url)
        await client.recv()
        client.transport.abort()
        assert (await upstream.close() or Close(0, "")).code == 1001
        await front.wait_ended()
        await client.wait_closed()
    assert front.failure is None


async def test_an_upstream_that_vanishes_while_the_client_floods_is_noticed() -> None:
    async def vanish(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    async with _behind(vanish) as (url, front), _open(url) as client:
        with pytest.raises(ConnectionClosed):
            await _flood(client)
        assert (client.close_code, client.close_reason) == (1014, "the upstream connection was lost")
        await front.wait_ended()
    assert front.failure is None


async def test_an_upstream_that_stops_answering_pings_is_lost() -> None:
    release = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await release.wait()
        socket.transport.abort()

    async with _behind(deaf, gateway={"ping_interval_s": 0.1, "close_timeout_s": 0.2}) as (url, front):
        async with _open(url) as client:
            assert await _closed(client) == Close(1014, "the upstream connection was lost")
            await front.wait_ended()
            release.set()


# Refusals


@contextmanager
def _bound_socket(*, listening: bool) -> Iterator[str]:
    """Hold a port that refuses connections, or one that takes them and never answers."""
    with sockets.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen()
        yield f"ws://127.0.0.1:{held.getsockname()[1]}/secret"


def _status(status: HTTPStatus, **headers: str) -> Callable[[ServerConnection, Request], Response]:
    def answer(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(status, "internal detail")
        response.headers.update(headers)
        return response

    return answer


async def test_a_refused_connection_is_502_before_the_accept_and_1014_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _bound_socket(listening=False) as endpoint, caplog.at_level(logging.WARNING, "dws_core.proxy"):
        async with _before(endpoint.replace("//", "//u:hush@") + "?token=hush") as (url, front):
            denied = await _denied(url)
            await front.wait_ended()
        async with _before(endpoint, accept=True) as (url, front), _open(url) as client:
            closed = await _closed(client)
            await front.wait_ended()
    assert denied.status_code == 502
    assert denied.body == b"the upstream cannot be reached"
    assert closed == Close(1014, "the upstream cannot be reached")
    assert "secret" in caplog.text, "the log names the upstream"
    assert "hush" not in caplog.text, "but not what is secret in its URL"


async def test_a_handshake_that_takes_too_long_is_504_before_the_accept_and_1013_after_it() -> None:
    with _bound_socket(listening=True) as endpoint:
        async with _before(endpoint, connect_timeout_s=0.1) as (url, front):
            denied = await _denied(url)
            await front.wait_ended()
        async with _before(endpoint, connect_timeout_s=0.1, accept=True) as (url, front), _open(url) as client:
            closed = await _closed(client)
            await front.wait_ended()
    assert denied.status_code == 504
    assert closed == Close(1013, "the upstream did not answer in time")


async def test_an_unknown_host_is_502(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> object:
        raise sockets.gaierror(sockets.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with _before("ws://upstream.invalid/") as (url, _):
        denied = await _denied(url)
    assert denied.status_code == 502
    assert b"invalid" not in denied.body


@pytest.mark.parametrize("status", [HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE])
async def test_a_refusing_upstream_is_502_with_its_status_in_words(status: HTTPStatus) -> None:
    async with _behind(_echo, process_request=_status(status)) as (url, _):
        denied = await _denied(url)
    assert denied.status_code == 502
    assert denied.body == f"the upstream refused the connection (HTTP {status})".encode()


async def test_a_refusing_upstream_closes_an_accepted_client_with_1014() -> None:
    async with _behind(_echo, gateway={"accept": True}, process_request=_status(HTTPStatus.FORBIDDEN)) as (url, front):
        async with _open(url) as client:
            assert await _closed(client) == Close(1014, "the upstream refused the connection (HTTP 403)")
        await front.wait_ended()


async def test_a_redirect_is_not_followed() -> None:
    elsewhere = Upstream()
    async with serve_websockets(elsewhere, "127.0.0.1", 0) as target:
        answer = _status(HTTPStatus.FOUND, Location=_url(target))
        async with _behind(_echo, process_request=answer) as (url, _):
            assert (await _denied(url)).status_code == 502
    assert not elsewhere.connected.done()


async def test_an_upstream_that_speaks_no_http_is_502() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        async with _before(f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/") as (url, _):
            denied = await _denied(url)
    assert denied.status_code == 502
    assert denied.body == b"the upstream's answer is not a WebSocket handshake"


async def test_a_server_without_denial_responses_refuses_with_403() -> None:
    with _bound_socket(listening=False) as endpoint:
        front = Gateway(endpoint)

        async def without(scope: Any, receive: Any, send: Any) -> None:
            scope.pop("extensions", None)
            await front.app(scope, receive, send)

        async with serve(without) as running:
            assert (await _denied(f"{running.url}/ws")).status_code == 403
            await front.wait_ended()
    assert front.failure is None


async def test_a_client_that_leaves_during_the_upstreams_handshake_is_not_missed() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hesitate(_: ServerConnection, __: Request) -> None:
        asked.set()
        await answer.wait()

    upstream = Upstream()
    async with _behind(upstream, process_request=hesitate) as (url, front):
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(_opened(url))
            await asked.wait()
            opening.cancel()
        answer.set()
        assert (await upstream.close() or Close(0, "")).code == 1001
        await front.wait_ended()
    assert front.failure is None


async def _opened(url: str) -> ClientConnection:
    return await _open(url)


async def test_a_proxy_for_a_client_that_is_gone_connects_to_nobody() -> None:
    upstream = Upstream()
    ended = asyncio.Event()
    app = FastAPI()

    async with serve_websockets(upstream, "127.0.0.1", 0) as server:

        @app.websocket("/ws")
        async def late(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.receive()  # the disconnect
            await WebSocketProxy(websocket, _url(server))()
            ended.set()

        async with serve(app) as running, _open(f"{running.url}/ws") as client:
            await client.close()
            async with asyncio.timeout(HANG_S):
                await ended.wait()
    assert not upstream.connected.done()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "upstream.pem"
    encoded = serialization.Encoding.PEM
    private = key.private_bytes(encoded, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + made.public_bytes(encoded))
    return pem


def _server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_an_upstream_with_tls_works(certificate: Path) -> None:
    upstream = Upstream()
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with serve_websockets(_echo, "127.0.0.1", 0, ssl=_server_tls(certificate)) as server:
        async with _before(_url(server).replace("ws:", "wss:"), ssl=trusted) as (url, front):
            async with _open(url) as client:
                await client.send("x" * 200_000)
                assert await client.recv() == "x" * 200_000
            await front.wait_ended()
    async with serve_websockets(upstream, "127.0.0.1", 0, ssl=_server_tls(certificate)) as server:
        async with _before(_url(server).replace("ws:", "wss:"), ssl=trusted) as (url, front):
            client = await _open(url)
            (await upstream.connection()).transport.abort()
            assert (await _closed(client)).code == 1014
            await front.wait_ended()


async def test_an_upstream_with_an_unknown_certificate_is_502(certificate: Path) -> None:
    async with serve_websockets(_echo, "127.0.0.1", 0, ssl=_server_tls(certificate)) as server:
        async with _before(_url(server).replace("ws:", "wss:")) as (url, _):
            assert (await _denied(url)).status_code == 502


# Back-pressure: the sender must come to a stand, and go on once the reader reads


@asynccontextmanager
async def _round_trip() -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Give a way to let everything else in this loop happen: a message to a server of its own, and back."""
    async with serve_websockets(_echo, "127.0.0.1", 0) as server, _open(_url(server)) as client:

        async def there_and_back() -> None:
            await client.send("")
            await client.recv()

        yield there_and_back


async def _standstill(count: Callable[[], int]) -> int:
    """Wait until a count has not changed during many round trips."""
    async with asyncio.timeout(HANG_S), _round_trip() as there_and_back:
        last, still = -1, 0
        while still < 50:
            await there_and_back()
            still = still + 1 if count() == last else 0
            last = count()
            assert last * CHUNK < BOUND, "the sender never comes to a stand"
    return last


async def test_a_client_that_stops_reading_holds_the_upstream_back() -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        while True:
            await socket.send(sent.to_bytes(8) + bytes(CHUNK))
            sent += 1

    upstream = Upstream(flood)
    async with _behind(upstream) as (url, front):
        async with _open(url) as client:
            stood = await _standstill(lambda: sent)
            for number in range(stood + 2):  # the last ones were not sent at the standstill
                message = await client.recv()
                assert isinstance(message, bytes)
                assert int.from_bytes(message[:8]) == number
        await front.wait_ended()


async def test_an_upstream_that_stops_reading_holds_the_client_back() -> None:
    sent, read = 0, asyncio.Event()
    got: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def dawdle(socket: ServerConnection) -> None:
        await read.wait()
        async for message in socket:
            got.put_nowait(message)

    async def flood(client: ClientConnection) -> None:
        nonlocal sent
        while True:
            await client.send(sent.to_bytes(8) + bytes(CHUNK))
            sent += 1

    async with _behind(dawdle) as (url, front):
        client = await _open(url)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(flood(client))
            stood = await _standstill(lambda: sent)
            read.set()
            for number in range(stood + 2):
                message = await got.get()
                assert isinstance(message, bytes)
                assert int.from_bytes(message[:8]) == number
            sending.cancel()
        client.transport.abort()
        await front.wait_ended()
        await client.wait_closed()


async def test_a_client_that_never_reads_again_is_given_up() -> None:
    upstream = Upstream(_flood)
    async with _behind(upstream, gateway={"stall_timeout_s": 0.2, "close_timeout_s": 0.2}) as (url, front):
        client = await _open(url)
        assert await upstream.close() == Close(1001, "the client stopped reading")
        await front.wait_ended()
        client.transport.abort()
        await client.wait_closed()
    assert front.failure is None


async def test_an_upstream_that_never_reads_again_is_given_up() -> None:
    release = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        await release.wait()
        socket.transport.abort()

    async with _behind(deaf, gateway={"stall_timeout_s": 0.2, "close_timeout_s": 0.2}) as (url, front):
        async with _open(url) as client:
            with pytest.raises(ConnectionClosed):
                await _flood(client)
            assert (client.close_code, client.close_reason) == (1013, "the upstream stopped reading")
            await front.wait_ended()
            release.set()


async def test_an_open_proxy_keeps_no_reference_to_messages_that_have_passed() -> None:
    """A queue that grows unseen would keep them."""
    async with _behind(_echo) as (url, _), _open(url) as client:
        for number in range(50):
            await client.send(f"marked-{number}")
            await client.recv()
        kept = [text for text in gc.get_objects() if isinstance(text, dict) and "marked-3" in str(text.get("text", ""))]
    assert not kept


# Shutdown and cancellation


async def test_a_server_that_stops_tells_both_sides() -> None:
    upstream = Upstream()
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        front = Gateway(_url(server))
        async with serve(front.app) as running, _open(f"{running.url}/ws") as client:
            await upstream.connection()
            running.should_exit = True
            assert (await _closed(client)).code == 1012
            assert (await upstream.close() or Close(0, "")).code == 1012
            await front.wait_ended()
    assert front.failure is None


async def test_a_server_stops_although_both_sides_are_silent_and_full() -> None:
    """The client reads nothing, so not even a close frame can be written to it."""

    upstream = Upstream(_flood)
    async with serve_websockets(upstream, "127.0.0.1", 0) as server:
        front = Gateway(_url(server), close_timeout_s=0.2)
        async with serve(front.app, timeout_graceful_shutdown=2) as running:
            client = await _open(f"{running.url}/ws")
            running.should_exit = True
            await front.wait_ended()
            assert (await upstream.close() or Close(0, "")).code == 1012
            client.transport.abort()
            await client.wait_closed()
    assert front.failure is None


async def test_cancelling_the_endpoint_closes_both_sides() -> None:
    upstream = Upstream()
    async with _behind(upstream) as (url, front), _open(url) as client:
        await upstream.connection()
        assert front.task is not None
        front.task.cancel()
        assert (await _closed(client)).code == 1001
        assert await upstream.close() == Close(1001, "")
        await front.wait_ended()
    assert isinstance(front.failure, asyncio.CancelledError)


async def test_cancelling_twice_does_not_wait_for_a_deaf_upstream() -> None:
    release = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await release.wait()
        socket.transport.abort()

    async with _behind(deaf, gateway={"close_timeout_s": 60.0}) as (url, front), _open(url) as client:
        assert front.task is not None
        front.task.cancel()
        await _closed(client)  # the closing is under way, and the upstream does not answer
        front.task.cancel()
        await front.wait_ended()
        release.set()
    assert isinstance(front.failure, asyncio.CancelledError)


async def test_cancelling_during_the_upstreams_handshake_leaves_nothing() -> None:
    with _bound_socket(listening=True) as endpoint:
        async with _before(endpoint, accept=True) as (url, front):
            async with _open(url) as client:
                assert front.task is not None
                front.task.cancel()
                await front.wait_ended()
                await client.wait_closed()
    assert isinstance(front.failure, asyncio.CancelledError)


async def test_a_defect_in_a_pump_closes_both_sides_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(WebSocketProxy, "_pump_to_client", broken)
    upstream = Upstream()
    async with _behind(upstream) as (url, front), _open(url) as client:
        assert await _closed(client) == Close(1011, "the proxy failed")
        assert (await upstream.close() or Close(0, "")).code == 1011
        await front.wait_ended()
    assert isinstance(front.failure, ExceptionGroup)


# Decisions without a network


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://h/", "scheme"),
        ("ws:///path", "hostname"),
        ("ws://h/#part", "fragment"),
        ("ws://h:99999/", "[Pp]ort"),
        ("ws://h/a b", "space"),
        ("ws://h/a\r\nX: y", "space"),
        (f"ws://{'a' * 64}.example/", "too long"),
        ("ws://user@h/", "password"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused_with_a_fix(endpoint: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as error:
        WebSocketProxy(None, endpoint)  # type: ignore[arg-type]
    assert error.value.fix


def test_a_refused_endpoint_does_not_show_its_secrets() -> None:
    with pytest.raises(ConfigurationError) as error:
        WebSocketProxy(None, "http://ann:hush@h/p?token=hush")  # type: ignore[arg-type]
    assert "hush" not in str(error.value)
    assert error.value.__suppress_context__
    assert _masked("wss://a:hush@h:1/p@q?x#y") == "wss://***@h:1/p@q"


@pytest.mark.parametrize(
    "options",
    [
        {"forward_headers": "cookie"},
        {"forward_headers": ["sec-websocket-extensions"]},
        {"forward_headers": ["Sec-WebSocket-Protocol"]},
        {"forward_headers": ["Connection"]},
        {"forward_headers": ["a b"]},
        {"extra_headers": {"Sec-WebSocket-Key": "x"}},
        {"extra_headers": {"Host": "x"}},
        {"extra_headers": {"x-user": "ann\r\nx-admin: 1"}},
        {"extra_headers": {"x-user": "\N{SNOWMAN}"}},
        {"subprotocols": "a"},
        {"subprotocols": ["a, b"]},
        {"subprotocols": {"a": "b c"}},
        {"ssl": ssl.create_default_context()},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_with_a_fix(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="WebSocketProxy") as error:
        WebSocketProxy(None, "ws://h/", **options)  # type: ignore[arg-type]
    assert error.value.fix


def test_two_sources_of_authorization_are_refused() -> None:
    for options in ({"forward_headers": ["authorization"]}, {"extra_headers": {"Authorization": "x"}}):
        with pytest.raises(ConfigurationError, match="two Authorization"):
            WebSocketProxy(None, "ws://u:p@h/", **options)  # type: ignore[arg-type]


def test_a_reason_is_cut_between_characters() -> None:
    assert _close(1000, "é" * 100).reason == "é" * 61
    assert _close(1000, "a" * 123).reason == "a" * 123
    assert _close(1000, "a" * 122 + "✓").reason == "a" * 122


def test_only_codes_of_the_registry_may_be_sent() -> None:
    unsendable = [code for code in range(1000, 5001) if not _is_sendable(code)]
    assert unsendable == [1004, 1005, 1006, *range(1015, 3000), 5000]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"code": 1000, "reason": ""}, 1000),
        ({"code": 4001, "reason": "x"}, 4001),
        ({"code": 1005, "reason": ""}, 1000),
        ({"code": 1005, "reason": None}, 1000),
        ({"code": 1005}, 1001),
        ({}, 1001),
        ({"code": 1006, "reason": ""}, 1001),
        ({"code": 1015}, 1001),
        ({"code": 2999}, 1001),
    ],
)
def test_a_disconnect_becomes_a_code_that_may_be_sent(event: dict[str, Any], code: int) -> None:
    assert _client_left(event).to_upstream.code == code
