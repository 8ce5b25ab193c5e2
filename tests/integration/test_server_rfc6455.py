"""The protocol class follows RFC 6455: its inherited behaviour stays correct."""

from __future__ import annotations

from typing import Any

import pytest
from support.protocol_pair import open_pair, ready_frame
from support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, RawFrame


async def test_fragmented_message_with_ping_inside_arrives() -> None:
    async with open_pair() as (side, client, _):
        client.send(TEXT, "grü".encode()[:3], fin=False)
        client.send(PING, b"in between")
        client.send(CONT, "grü".encode()[3:], fin=False)
        client.send(CONT, b"n", fin=True)
        assert (await side.next())["text"] == "grün"
        assert await client.receive() == RawFrame(PONG, b"in between")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
async def test_messages_of_every_length_class_arrive(size: int) -> None:
    async with open_pair() as (side, client, _):
        client.send(BINARY, b"x" * size)
        assert (await side.next())["bytes"] == b"x" * size


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(TEXT, b"\xff\xfe", {})], 1007),
        ([(TEXT, b"\xc3", {"fin": False}), (CONT, b"\x28", {})], 1007),
        ([(TEXT, b"x" * 3_000, {})], 1009),
        ([(TEXT, b"x" * 1_500, {"fin": False}), (CONT, b"x" * 1_500, {})], 1009),
        ([(TEXT, b"x", {"mask": False})], 1002),
        ([(CONT, b"x", {})], 1002),
        ([(TEXT, b"x", {"fin": False}), (TEXT, b"y", {})], 1002),
        ([(PING, b"x" * 126, {})], 1002),
        ([(PING, b"x", {"fin": False})], 1002),
        ([(TEXT, b"x", {"rsv": 4})], 1002),
        ([(TEXT, b"x", {"rsv": 2})], 1002),
        ([(3, b"x", {})], 1002),
        ([(11, b"x", {})], 1002),
        ([(CLOSE, b"\x03", {})], 1002),
        ([(CLOSE, (1005).to_bytes(2, "big"), {})], 1002),
        ([(CLOSE, (1000).to_bytes(2, "big") + b"\xff", {})], 1007),
    ],
)
async def test_protocol_violation_closes_with_its_code(
    frames: list[tuple[int, bytes, dict[str, Any]]], code: int
) -> None:
    async with open_pair(ws_max_size=2_000) as (side, client, _):
        for opcode, payload, how in frames:
            client.send(opcode, payload, **how)
        assert await client.close_code() == code
        assert side.write(ready_frame(b"late")) is False


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125])
async def test_pong_has_payload_of_ping(payload: bytes) -> None:
    async with open_pair() as (_, client, _server):
        client.send(PING, payload)
        assert await client.receive() == RawFrame(PONG, payload)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_close_is_echoed_and_connection_ends(code: int) -> None:
    async with open_pair() as (side, client, _):
        client.send(CLOSE, code.to_bytes(2, "big"))
        assert await client.close_code() == code
        await client.wait_ended()
        assert (await side.next())["code"] == code


async def test_empty_close_is_answered() -> None:
    async with open_pair() as (side, client, _):
        client.send(CLOSE)
        assert await client.close_code() == 1005
        assert (await side.next())["code"] == 1005
