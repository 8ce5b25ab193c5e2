"""Clients that flood a server: the protocol class for uvicorn drops them, and their neighbours do not wait."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest
from support.apps import chat
from support.calls import event_of_a_close, event_of_call
from support.cost import cpu_time, memory
from support.protocol_pair import OURS, open_pair
from support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, RawClient
from support.resume import connect
from support.servers import HANG_S, Client, Server, serve

from dws_core import Limits, Principal
from dws_core.server import WebSocketProtocol


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a short masked frame."""
    return bytes((0x80 * fin | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


@pytest.mark.parametrize("opcode", [PING, PONG], ids=["pings", "pongs"])
async def test_control_frame_flood_is_dropped(opcode: int) -> None:
    """Two megabytes of empty control frames take 2 s of CPU time if all are parsed."""
    _, app = chat()
    async with serve(app, ws=OURS) as server, RawClient.open(f"{server.url}/ws/bad") as bad:
        async with Client.open(f"{server.url}/ws/good") as good:
            with cpu_time() as cost:
                bad.writer.write(frame(opcode) * 350_000)
                assert await bad.close_code() in (4503, None)
                await bad.wait_ended()
                await good.exchange(type="ping")
            assert cost.cpu_s < 0.6


@pytest.mark.parametrize("early", [frame(PONG), b"\x82\xff" + (10_000_000).to_bytes(8, "big")], ids=["frame", "start"])
async def test_client_that_sends_before_accept_is_dropped(early: bytes) -> None:
    """It could fill the memory of the node while its handshake is checked."""
    authenticator = _Waiting()
    _, app = chat(authenticator=authenticator)
    async with serve(app, ws=OURS) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await authenticator.called.wait()
        writer.write(early)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        authenticator.gate.set()
        writer.transport.abort()


class _Waiting:
    """An authenticator that waits."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.gate = asyncio.Event()

    async def authenticate(self, handshake: object) -> Principal:
        self.called.set()
        await self.gate.wait()
        return Principal(id="somebody")


async def test_some_control_frames_are_allowed() -> None:
    async with open_pair() as (_, client, _):
        client.writer.write(frame(PING) * 1_500)
        for _ in range(1_500):
            assert (await client.receive()).opcode == PONG


async def test_short_fragments_are_limited() -> None:
    async with open_pair() as (side, client, _):
        client.writer.write(frame(TEXT, b"x", fin=False) + frame(CONT, b"x", fin=False) * 1_000 + frame(CONT))
        assert (await side.next())["text"] == "x" * 1_001
        client.writer.write(frame(TEXT, b"x", fin=False) + frame(CONT, fin=False) * 5_000)
        assert await client.close_code() == 4503


async def test_number_of_fragments_is_limited() -> None:
    """Each takes memory in addition to its bytes."""
    async with open_pair() as (side, client, _):
        side.sink.limit_messages(1600)
        client.writer.write(frame(BINARY, fin=False) + frame(CONT, fin=False) * 99)
        client.send(PING, b"allowed")
        assert (await client.receive()).payload == b"allowed"
        client.writer.write(frame(CONT, fin=False))
        assert await client.close_code() == 4503


async def test_many_small_messages_let_others_continue() -> None:
    """Frames that arrive together are parsed in several ticks, in order, while reading is paused."""
    async with open_pair() as (side, client, _):
        count, ticks = 20_000, 0
        client.writer.write(b"".join(frame(TEXT, b"%d" % number) for number in range(count)))

        async def count_ticks() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            counting = group.create_task(count_ticks())
            for number in range(count):
                assert (await side.next())["text"] == str(number)
            counting.cancel()
        assert ticks > 8
        client.send(TEXT, b"last")
        assert (await side.next())["text"] == "last"


async def test_frames_after_close_are_limited() -> None:
    async with open_pair() as (side, client, _):
        await side.send({"type": "websocket.close", "code": 4500})
        with cpu_time() as cost:
            client.writer.write(frame(TEXT, b"x") * 200_000)
            await client.wait_ended()
        assert cost.cpu_s < 0.6


async def test_few_frames_after_close_keep_close_handshake() -> None:
    async with open_pair() as (side, client, _):
        await side.send({"type": "websocket.close", "code": 4500})
        client.writer.write(frame(TEXT, b"x") * 1_900)
        assert await client.close_code() == 4500
        client.send(CLOSE, (4500).to_bytes(2, "big"))
        await client.wait_ended()


async def test_unfinished_message_has_size_limit() -> None:
    """uvicorn itself holds up to 16 MB for each connection."""
    _, app = chat(limits=Limits(message_bytes=10_000))
    async with serve(app, ws=OURS) as server, RawClient.open(f"{server.url}/ws/bad") as bad:
        with memory() as cost:
            bad.send(TEXT, b"x" * 5_000, fin=False)
            for _ in range(100):
                bad.send(CONT, b"x" * 5_000, fin=False)
            assert await bad.close_code() in (1009, None)
        assert cost.peak_bytes < 2_000_000


async def test_steady_flood_is_closed() -> None:
    """Also if some of its messages are within the rate."""
    _, app = chat(limits=Limits(messages_per_s=1000.0, burst=10, flood_messages=50))
    async with serve(app) as server, RawClient.open(f"{server.url}/ws/bad") as bad:
        async with asyncio.TaskGroup() as group:
            closed = group.create_task(bad.close_code())
            while not closed.done():
                bad.send(TEXT, b'{"type":"unsubscribe","topic":"t"}')
                await asyncio.sleep(0)
        assert closed.result() == 4503


async def test_refused_messages_are_not_decoded() -> None:
    """They are answered with their id."""
    _, app = chat(limits=Limits(messages_per_s=0.001, burst=1, flood_messages=None))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.exchange(type="ping")
        deep = json.dumps({"id": "mine", "data": [[]] * 15_000})
        with memory() as cost:
            await client.socket.send(deep)
            answer = await client.receive()
        assert (answer["code"], answer["id"]) == ("rate-limited", "mine")
        assert cost.peak_bytes < 1_000_000  # 15,000 lists take more


async def test_header_over_limit_is_answered_with_431() -> None:
    _, app = chat()
    async with serve(app, ws=OURS) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Authorization: Bearer " + b"a" * 9_000 + b"\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_invalid_utf8_is_logged_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("dws_core.server._warned", {})
    _, app = chat()
    async with serve(app, ws=OURS) as server:
        for _ in range(3):
            async with RawClient.open(f"{server.url}/ws/bad") as bad:
                bad.send(TEXT, b"\xff\xfe")
                assert await bad.close_code() == 1007
    found = [record for record in caplog.records if "UTF-8" in record.getMessage()]
    assert len(found) == 1
    assert found[0].exc_info is None


# -- clients that do not read


async def unread_replay(server: Server, client: RawClient) -> None:
    """Let a client resume from the beginning of a topic with much data, and never read."""
    async with Client.open(f"{server.url}/ws/helper") as helper:
        cursor = (await connect(helper))["cursor"]
    start = cursor.rpartition(":")[0] + ":0"
    request = {"type": "connect", "data": {"filters": ["t"], "cursor": start}}
    client.send(TEXT, json.dumps(request).encode())


@pytest.mark.parametrize("ws", [OURS, "websockets-sansio"])
async def test_replay_that_nobody_reads_is_closed(monkeypatch: pytest.MonkeyPatch, ws: str) -> None:
    manager, app = chat(limits=Limits(read_stall_s=0.2, close_timeout_s=0.2, handler_grace_s=0))
    async with serve(app, ws=ws, ws_per_message_deflate=False) as server:
        for _ in range(200):
            await manager.publish("t", "x" * 60_000)
        async with RawClient.open(f"{server.url}/ws/bad", receive_buffer=4096) as bad:
            await unread_replay(server, bad)
            closed = event_of_a_close(monkeypatch)
            await asyncio.wait_for(closed.wait(), HANG_S)
            assert not manager.active_connections


async def test_failed_ping_drops_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn itself waits for the buffer of a closing connection without limit."""
    monkeypatch.setattr("dws_core.server.WebSocketProtocol.flush_s", 0.1)
    manager, app = chat()
    settings = {"ws": OURS, "ws_per_message_deflate": False, "ws_ping_interval": 0.5, "ws_ping_timeout": 0.5}
    async with serve(app, **settings) as server:
        for _ in range(200):
            await manager.publish("t", "x" * 60_000)
        async with RawClient.open(f"{server.url}/ws/bad", receive_buffer=4096) as bad:
            await unread_replay(server, bad)
            closed = event_of_a_close(monkeypatch)
            lost = event_of_call(monkeypatch, WebSocketProtocol, "connection_lost")
            await asyncio.wait_for(closed.wait(), HANG_S)
            await asyncio.wait_for(lost.wait(), HANG_S)


async def test_client_that_closes_and_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dws_core.server.WebSocketProtocol.flush_s", 0.1)
    async with open_pair() as (side, client, _):
        lost = event_of_call(monkeypatch, WebSocketProtocol, "connection_lost")
        side.write(b"\x81\x7f" + (20_000_000).to_bytes(8, "big") + b"x" * 20_000_000)
        client.send(CLOSE, (1000).to_bytes(2, "big"))
        await asyncio.wait_for(lost.wait(), HANG_S)
