"""The cases of Autobahn's fuzzing client in short, by its groups. `nox -s autobahn` runs all of them.

Each group checks the received messages, the pongs and the close code, and that nothing is logged.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from support.protocol_pair import DEFLATE, AppSide, open_pair
from support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, RawClient, RawFrame, raw_frame

LENGTHS = (0, 1, 125, 126, 127, 128, 65_535, 65_536)


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("dws_core.server._warned", {"text": float("inf")})
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


async def write(client: RawClient, data: bytes, chop: int | None) -> None:
    """Write data, in pieces if there is a length of them."""
    for start in range(0, len(data), chop or len(data) or 1):
        client.writer.write(data[start : start + (chop or len(data))])
        await client.writer.drain()
        await asyncio.sleep(0)


def fragments(opcode: int, payload: bytes, size: int) -> bytes:
    """Return a message in fragments."""
    parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
    last = len(parts) - 1
    return b"".join(raw_frame(opcode if not n else CONT, part, fin=n == last) for n, part in enumerate(parts))


async def received(side: AppSide) -> str | bytes:
    event = await side.next()
    found: str | bytes = event["text"] if event.get("text") is not None else event["bytes"]
    return found


@pytest.mark.parametrize("chop", [None, 997])
async def test_1_framing(chop: int | None) -> None:
    async with open_pair() as (side, client, _):
        for length in LENGTHS:
            await write(client, raw_frame(TEXT, b"*" * length), chop)
            assert await received(side) == "*" * length
            await write(client, raw_frame(BINARY, b"\xfe" * length), chop)
            assert await received(side) == b"\xfe" * length


@pytest.mark.parametrize("chop", [None, 1])
async def test_2_pings_and_pongs(chop: int | None) -> None:
    async with open_pair() as (side, client, _):
        await write(client, raw_frame(PONG) + raw_frame(PONG, b"unsolicited"), chop)
        for payload in (b"", b"Hello", b"\x00\xff\xfe", b"\xfe" * 125, *(b"payload-%d" % n for n in range(10))):
            await write(client, raw_frame(PING, payload), chop)
            assert await client.receive() == RawFrame(PONG, payload)
        client.send(TEXT, b"still open")
        assert await received(side) == "still open"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (fragments(TEXT, b"fragment1fragment2", 9), "fragment1fragment2"),
        (fragments(BINARY, bytes(range(256)), 1), bytes(range(256))),
        (raw_frame(TEXT, b"a", fin=False) + raw_frame(PING, b"p") + raw_frame(CONT, b"b"), "ab"),
        (raw_frame(TEXT, fin=False) + raw_frame(CONT, fin=False) + raw_frame(CONT), ""),
        (raw_frame(TEXT, fin=False) + raw_frame(CONT, b"middle", fin=False) + raw_frame(CONT), "middle"),
        (
            b"".join(
                raw_frame(TEXT if not n else CONT, b"%d" % n, fin=n == 4) + raw_frame(PING, b"p") for n in range(5)
            ),
            "01234",
        ),
    ],
)
@pytest.mark.parametrize("chop", [None, 1])
async def test_5_fragmentation(data: bytes, expected: str | bytes, chop: int | None) -> None:
    async with open_pair() as (side, client, _):
        await write(client, data, chop)
        assert await received(side) == expected
        client.send(PING, b"end")
        while (frame := await client.receive()) != RawFrame(PONG, b"end"):
            assert frame == RawFrame(PONG, b"p")


UNFINISHED = raw_frame(TEXT, b"x", fin=False)
VIOLATIONS = {
    **{f"2 ping of {n} bytes": raw_frame(PING, b"x" * n) for n in (126, 65_536)},
    **{
        f"3 rsv {rsv} opcode {o}": raw_frame(o, b"x", rsv=rsv)
        for rsv in range(1, 8)
        for o in (TEXT, BINARY, PING, PONG)
    },
    "3 rsv in a close frame": raw_frame(CLOSE, b"\x03\xe8", rsv=7),
    **{f"4 opcode {o}": raw_frame(o) for o in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"4 opcode {o} with data": raw_frame(o, b"data") for o in (3, 7, 11, 15)},
    "5 fragmented ping": raw_frame(PING, b"a", fin=False) + raw_frame(CONT, b"b"),
    "5 fragmented pong": raw_frame(PONG, b"a", fin=False) + raw_frame(CONT, b"b"),
    "5 continuation of nothing": raw_frame(CONT, b"x"),
    "5 unfinished continuation of nothing": raw_frame(CONT, b"x", fin=False) + raw_frame(TEXT, b"y"),
    "5 text within a text": UNFINISHED + raw_frame(TEXT, b"y"),
    "5 binary within a text": UNFINISHED + raw_frame(BINARY, b"y", fin=False),
    "5 not masked": raw_frame(TEXT, b"x", mask=False),
    "7 close of one byte": raw_frame(CLOSE, b"\x03"),
    "7 long reason": raw_frame(CLOSE, b"\x03\xe8" + b"x" * 124),
    "7 fragmented close": raw_frame(CLOSE, b"\x03\xe8", fin=False),
    **{
        f"7 code {code}": raw_frame(CLOSE, code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("case", VIOLATIONS)
async def test_violation_closes_with_1002(case: str) -> None:
    """A message after it does not arrive."""
    async with open_pair() as (side, client, _):
        client.writer.write(VIOLATIONS[case] + raw_frame(TEXT, b"after"))
        assert await client.close_code() == 1002
        await client.wait_ended()
        assert (await side.next())["type"] == "websocket.disconnect"


VALID_TEXTS = (
    "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\ufffe", "\uffff", "\U00010000",
    "\U0001fffe", "\U0010ffff", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε",
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_6_valid_utf8(size: int) -> None:
    """Also if a character is divided."""
    async with open_pair() as (side, client, _):
        for text in VALID_TEXTS:
            client.writer.write(fragments(TEXT, text.encode(), size))
            assert await received(side) == text


INVALID_TEXTS = (
    b"\x80", b"\xbf\x80", b"\xc0 ", b"\xe0 ", b"\xf0 ", b"\xf8 ", b"\xfc ", b"\xfe", b"\xff", b"\xc3", b"\xe1\xbd",
    b"\xf0\x90\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "κόσμε".encode() + b"\xed\xa0\x80edited",
)  # fmt: skip


@pytest.mark.parametrize("invalid", INVALID_TEXTS)
@pytest.mark.parametrize("size", [1, 1000])
async def test_6_invalid_utf8_closes_with_1007(invalid: bytes, size: int) -> None:
    async with open_pair() as (side, client, _):
        client.writer.write(fragments(TEXT, b"before " + invalid, size) + raw_frame(TEXT, b"after"))
        assert await client.close_code() == 1007
        assert (await side.next())["type"] == "websocket.disconnect"


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "x" * 123])
async def test_7_valid_close_is_echoed(code: int, reason: str) -> None:
    """Frames after it are ignored."""
    async with open_pair() as (side, client, _):
        client.send(CLOSE, code.to_bytes(2, "big") + reason.encode())
        client.send(TEXT, b"ignored")
        client.send(PING, b"ignored")
        assert await client.receive() == RawFrame(CLOSE, code.to_bytes(2, "big") + reason.encode())
        await client.wait_ended()
        event = await side.next()
        assert (event["type"], event["code"], event["reason"]) == ("websocket.disconnect", code, reason)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raw_frame(CLOSE), 1005),
        (raw_frame(CLOSE, b"\x03\xe8") * 2, 1000),
        (UNFINISHED + raw_frame(CLOSE, b"\x03\xe8") + raw_frame(CONT, b"y"), 1002),  # a choice of websockets
        (raw_frame(CLOSE, b"\x03\xe8\xce\xba\xe1\xbd"), 1007),
    ],
    ids=["empty", "twice", "within a message", "invalid reason"],
)
async def test_7_close(data: bytes, code: int) -> None:
    async with open_pair() as (side, client, _):
        client.writer.write(data)
        assert await client.close_code() == code
        await client.wait_ended()
        assert (await side.next())["type"] == "websocket.disconnect"


@pytest.mark.parametrize("size", [1300, 4096, 65_536, 2**20])
@pytest.mark.parametrize("chop", [None, 16_384])
async def test_9_and_10_large_messages(size: int, chop: int | None) -> None:
    async with open_pair() as (side, client, _):
        await write(client, fragments(BINARY, b"\xfe" * 2**20, size), chop)
        assert await received(side) == b"\xfe" * 2**20
        await write(client, fragments(TEXT, b"*" * 2**20, size), chop)
        assert await received(side) == "*" * 2**20


async def test_9_many_messages_return() -> None:
    async with open_pair() as (side, client, _):
        for number in range(200):
            client.send(TEXT, b"%d" % number)
            await side.send({"type": "websocket.send", "text": await received(side)})
            assert await client.receive() == RawFrame(TEXT, b"%d" % number)


class Deflate:
    """The client's half of the compression (RFC 7692)."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(wbits=-12)
        self._decompressor = zlib.decompressobj(wbits=-12)

    def pack(self, data: bytes) -> bytes:
        return (self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
            b"\0\0\xff\xff"
        )

    def unpack(self, data: bytes) -> bytes:
        return self._decompressor.decompress(data + b"\0\0\xff\xff")


def compressed(payload: bytes, size: int, opcode: int = TEXT) -> bytes:
    """Return a compressed message in fragments. Only the first one has RSV1."""
    first, rest = raw_frame(opcode, payload[:size], fin=len(payload) <= size, rsv=4), payload[size:]
    parts = [rest[start : start + size] for start in range(0, len(rest), size)]
    return first + b"".join(raw_frame(CONT, part, fin=n == len(parts)) for n, part in enumerate(parts, 1))


@pytest.mark.parametrize("size", [16, 256, 100_000])
async def test_12_and_13_compressed_messages_return(size: int) -> None:
    """With context takeover in both directions."""
    async with open_pair(headers=DEFLATE) as (side, client, _):
        deflate = Deflate()
        for number, length in enumerate((0, 16, 64, 1024, 65_536, 131_072)):
            text = f"{number} {{'some': 'text'}} " * (length // 20)
            client.writer.write(compressed(deflate.pack(text.encode()), size))
            assert await received(side) == text
            await side.send({"type": "websocket.send", "text": text})
            frame = await client.receive()
            assert (frame.opcode, frame.rsv1) == (TEXT, True)
            assert deflate.unpack(frame.payload) == text.encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raw_frame(TEXT, b"\xff\xff\xff\xff", rsv=4), 1002),
        (raw_frame(PING, b"x", rsv=4), 1002),
        (raw_frame(TEXT, b"x", rsv=2), 1002),
        (raw_frame(TEXT, b"", fin=False) + raw_frame(CONT, b"x", rsv=4), 1002),
        (compressed(Deflate().pack(b"x" * 1_000_001), 10**6), 1009),
        (compressed(Deflate().pack(b"x" * 1_000_001), 200), 1009),
        (compressed(Deflate().pack(b"\xff"), 10), 1007),
    ],
    ids=["garbage", "ping", "rsv2", "continuation", "bomb", "bomb in fragments", "invalid text"],
)
async def test_12_and_13_violations(data: bytes, code: int) -> None:
    async with open_pair(headers=DEFLATE, ws_max_size=1_000_000) as (side, client, _):
        client.writer.write(data)
        assert await client.close_code() == code
        event: dict[str, Any] = await side.next()
        assert event["type"] == "websocket.disconnect"
