"""The protocol class for uvicorn: ready frames in every state of a connection."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import zlib
from typing import Any

import pytest
import trustme
import uvicorn
from support.protocol_pair import DEFLATE, OURS, App, SinkListener, open_pair, ready_frame
from support.raw_client import CLOSE, PING, PONG, TEXT, RawClient, RawFrame
from support.servers import HANG_S, serve
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dws_core import ConfigurationError
from dws_core.server import WebSocketProtocol, _check_version

# -- ready frames, state by state


async def test_ready_frames_before_accept_are_dropped() -> None:
    app = App()
    async with serve(app, ws=OURS, lifespan="off") as server, asyncio.TaskGroup() as group:
        opening = RawClient.open(server.url)
        task = group.create_task(opening.__aenter__())
        side = await app.opened.get()
        assert side.write(ready_frame(b"early")) is False
        await side.accept()
        client = await task
        assert side.write(ready_frame(b"now")) is True
        assert await client.receive() == RawFrame(TEXT, b"now")
        side.done.set()
        await opening.__aexit__(None, None, None)


async def test_ready_frames_and_server_frames_keep_order() -> None:
    async with open_pair() as (side, client, _):
        assert side.write(ready_frame(b"1") + ready_frame(b"2"))
        await side.send({"type": "websocket.send", "text": "3"})
        assert side.write(ready_frame(b"4"))
        assert [(await client.receive()).payload for _ in range(4)] == [b"1", b"2", b"3", b"4"]


async def test_pings_are_answered_between_ready_frames() -> None:
    async with open_pair() as (side, client, _):
        for number in range(20):
            side.write(ready_frame(b"x" * number))
            client.send(PING, b"p%d" % number)
        got = [await client.receive() for _ in range(40)]
        assert [frame.payload for frame in got if frame.opcode == PONG] == [b"p%d" % n for n in range(20)]
        assert [frame.payload for frame in got if frame.opcode == TEXT] == [b"x" * n for n in range(20)]


async def test_keepalive_pings_are_sent_between_ready_frames() -> None:
    async with open_pair(ws_ping_interval=0.01, ws_ping_timeout=HANG_S) as (side, client, _):
        ping = await client.receive()
        assert ping.opcode == PING
        side.write(ready_frame(b"still here"))
        client.send(PONG, ping.payload)
        kinds = [(await client.receive()).opcode for _ in range(2)]
        assert kinds == [TEXT, PING]


async def test_ready_frames_after_application_close_are_dropped() -> None:
    async with open_pair() as (side, client, _):
        await side.send({"type": "websocket.close", "code": 4001, "reason": "bye"})
        assert side.write(ready_frame(b"late")) is False
        assert await client.receive() == RawFrame(CLOSE, (4001).to_bytes(2, "big") + b"bye")
        client.send(CLOSE, (4001).to_bytes(2, "big"))
        await client.wait_ended()


async def test_ready_frames_after_client_close_are_dropped() -> None:
    async with open_pair() as (side, client, _):
        client.send(CLOSE, (1000).to_bytes(2, "big") + b"done")
        event = await side.next()
        assert (event["type"], event["code"], event["reason"]) == ("websocket.disconnect", 1000, "done")
        assert side.write(ready_frame(b"late")) is False
        assert await client.receive() == RawFrame(CLOSE, (1000).to_bytes(2, "big") + b"done")
        await client.wait_ended()


async def test_ready_frames_after_lost_connection_are_dropped() -> None:
    async with open_pair() as (side, client, _):
        client.writer.transport.abort()
        assert (await side.next())["type"] == "websocket.disconnect"
        assert side.write(ready_frame(b"late")) is False
        side.sink.abort()


async def test_ready_frames_after_server_shutdown_are_dropped() -> None:
    async with open_pair() as (side, client, server):
        server.should_exit = True
        event = await side.next()
        assert event["code"] == 1012
        assert side.write(ready_frame(b"late")) is False
        assert await client.close_code() == 1012


async def test_late_listener_is_closed_at_once() -> None:
    async with open_pair() as (side, client, _):
        client.send(CLOSE, (1000).to_bytes(2, "big"))
        await side.next()
        late = SinkListener()
        side.sink.attach(late)
        assert late.closed


async def test_ready_frames_after_refused_handshake_are_dropped() -> None:
    app = App()
    async with serve(app, ws=OURS, lifespan="off") as server, asyncio.TaskGroup() as group:
        opening = group.create_task(_refused(server.url))
        side = await app.opened.get()
        assert side.listener.paused
        await side.receive()
        await side.send({"type": "websocket.close"})
        assert side.listener.closed
        await opening
        side.done.set()


async def _refused(url: str) -> None:
    with pytest.raises(InvalidStatus):
        await connect(url, proxy=None)


async def test_ready_frames_after_application_return_are_dropped() -> None:
    async with open_pair() as (side, client, _):
        side.done.set()
        await client.wait_ended()
        assert side.write(ready_frame(b"late")) is False


async def test_ready_frames_after_malformed_frame_are_dropped() -> None:
    async with open_pair() as (side, client, _):
        client.send(TEXT, b"unmasked", mask=False)
        assert (await side.next())["code"] == 1002
        assert side.write(ready_frame(b"late")) is False
        assert await client.close_code() == 1002


async def test_abort_drops_connection_without_close_frame() -> None:
    async with open_pair() as (side, client, _):
        side.sink.abort()
        assert (await side.next())["type"] == "websocket.disconnect"
        assert await client.close_code() is None


async def test_slow_reader_pauses_and_resumes_listener() -> None:
    async with open_pair() as (side, client, _):
        frame = b"\x82\x7e" + (60_000).to_bytes(2, "big") + b"x" * 60_000
        sent = 0
        while side.write(frame):
            sent += 1
            assert sent < 1_000, "the buffer never fills"
            await asyncio.sleep(0)
        assert side.sink.buffered_bytes() > 0
        late = SinkListener()
        side.sink.attach(late)
        assert late.paused, "a listener that comes later is told"
        assert not late.closed
        for _ in range(sent):
            assert (await client.receive()).payload == b"x" * 60_000
        await asyncio.wait_for(late.resumed.wait(), HANG_S)
        assert side.sink.buffered_bytes() == 0


async def test_ready_frames_are_valid_with_compression() -> None:
    async with open_pair(DEFLATE) as (side, client, _):
        assert "permessage-deflate" in client.head
        side.write(ready_frame(b"plain"))
        await side.send({"type": "websocket.send", "text": "packed " * 20})
        side.write(ready_frame(b"plain again"))
        await side.send({"type": "websocket.send", "text": "packed " * 20})
        inflate = zlib.decompressobj(wbits=-12)
        texts = []
        for _ in range(4):
            frame = await client.receive()
            tail = b"\x00\x00\xff\xff"
            texts.append(inflate.decompress(frame.payload + tail) if frame.rsv1 else frame.payload)
        assert texts == [b"plain", b"packed " * 20, b"plain again", b"packed " * 20]


async def test_compressing_library_client_reads_ready_frames() -> None:
    app = App()
    async with serve(app, ws=OURS, lifespan="off") as server, asyncio.TaskGroup() as group:
        opening = group.create_task(_connected(server.url))
        side = await app.opened.get()
        await side.accept()
        client = await opening
        side.write(ready_frame(b"plain"))
        await side.send({"type": "websocket.send", "text": "packed"})
        assert [await client.recv(), await client.recv()] == ["plain", "packed"]
        await client.send("to the server " * 50)
        assert (await side.next())["text"] == "to the server " * 50
        side.done.set()
        await client.close()


async def _connected(url: str) -> Any:
    return await connect(url, proxy=None)


async def test_ready_frames_work_over_tls(tmp_path: Any) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    app = App()
    async with serve(app, ws=OURS, lifespan="off", ssl_keyfile=key, ssl_certfile=chain) as server:
        url = f"wss://localhost:{server.port}"
        async with asyncio.TaskGroup() as group:
            opening = RawClient.open(url, ssl=context)
            task = group.create_task(opening.__aenter__())
            side = await app.opened.get()
            await side.accept()
            client = await task
        side.write(ready_frame(b"secret"))
        assert await client.receive() == RawFrame(TEXT, b"secret")
        side.done.set()
        await opening.__aexit__(None, None, None)


# -- the parts of uvicorn that the class depends on


@pytest.mark.parametrize("version", ["0.52.4", "0.9"])
def test_old_uvicorn_is_rejected_with_fix(version: str) -> None:
    with pytest.raises(ConfigurationError, match=f"but {version} is installed.*pip install"):
        _check_version(version)
    for new in ("0.53.0", "0.54.0rc1", "1.0"):
        _check_version(new)


_OVERRIDDEN = (
    "run_asgi", "pause_writing", "resume_writing", "data_received", "send", "keepalive_timeout", "shutdown",
    "on_task_complete", "connection_lost",
)  # fmt: skip
_ENDINGS = {
    "connection_lost", "shutdown", "send", "keepalive_timeout",  # overridden
    "handle_connect", "send_receive_event_to_app", "handle_close", "handle_parser_exception",  # within data_received
    "run_asgi", "send_500_response",  # followed by on_task_complete, or within shutdown
}  # fmt: skip
"""The known methods of uvicorn's class that close a transport or send a close frame."""


def _ends(found: object) -> bool:
    source = inspect.getsource(found) if inspect.isfunction(found) else ""
    return any(end in source for end in (".close(", "send_close(", ".fail(", ".reject(", ".abort("))


def test_uvicorn_still_has_required_methods() -> None:
    changed = (
        f"uvicorn {uvicorn.__version__} changed its sans-I/O WebSocket protocol: read dws_core/server.py and the notes in "
        "docs/explanation/performance.md against its source, then correct this test"
    )
    assert WebSocketProtocol.__mro__[1] is WebSocketsSansIOProtocol, changed
    for method in _OVERRIDDEN:
        assert callable(getattr(WebSocketsSansIOProtocol, method, None)), f"{changed} ({method} is gone)"
    for method in ("run_asgi", "send"):
        assert inspect.iscoroutinefunction(getattr(WebSocketsSansIOProtocol, method)), changed
    endings = {name for name, found in vars(WebSocketsSansIOProtocol).items() if _ends(found)}
    assert endings <= _ENDINGS, f"{changed} (it may end a connection in {endings - _ENDINGS}, and no listener is told)"
    source = inspect.getsource(WebSocketsSansIOProtocol)
    for fact in ("self.conn = ServerProtocol(", "self.transport = transport", '"extensions": {', "self.run_asgi()"):
        assert fact in source, f"{changed} ({fact!r} is gone)"
    written = [line for line in source.splitlines() if "transport.write" in line]
    assert all('b"".join(' in line for line in written), f"{changed} (it may leave half a frame unwritten)"


async def test_uvicorn_still_has_required_attributes() -> None:
    async with open_pair() as (side, _client, _):
        protocol = side.sink
        assert protocol.conn.state.name == "OPEN"
        assert not protocol.transport.is_closing()
        assert protocol.transport.get_write_buffer_size() == 0


class Impatient(WebSocketProtocol):
    """A server that gives clients little time to read the remaining data."""

    flush_s = 0.1


async def test_client_that_reads_nothing_does_not_block_stop() -> None:
    async with open_pair(ws=Impatient) as (side, _, server):
        while side.write(ready_frame(b"x" * 100) * 10_000):
            pass
        side.done.set()
        async with asyncio.timeout(HANG_S):
            await server.stop()
