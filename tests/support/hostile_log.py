"""A log with records of other programs, and what every node on it must do: gaps in their place, and nothing more."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.apps import chat_app
from support.resume import connect
from support.servers import Client, Server, serve

from dws_core import WebSocketManager
from dws_core._log.stream.envelope import HEADER_BYTES, Draft, Envelope, Kind, encode
from dws_core.plugin import LogBroker

_STRANGER = b"stranger"


def _envelope(payload: bytes = b"1 json\n0", *, topic: str = "t", **members: Any) -> bytes:
    draft = Draft(topic, payload, members.pop("size", 10), members.pop("ttl_ms", 600_000), members.pop("key", None))
    known = {"kind": Kind.RECORDS, "publisher": _STRANGER, "time_ms": 1, "first": 1, "drafts": [draft], **members}
    return encode(Envelope(**known))


_GOOD = _envelope(key="key")

FOREIGN = {
    "nothing": b"",
    "text": b"hello",
    "JSON": json.dumps({"type": "order", "id": 7}).encode(),
    "noise": os.urandom(300_000),
    "half a header": _GOOD[: HEADER_BYTES // 2],
    "half a record": _GOOD[:-20],
    "too long": _GOOD + b"x",
    "later version": b"\x02" + _GOOD[1:],
    "unknown kind": _GOOD[:1] + b"\x09" + _GOOD[2:],
    "too many records": _GOOD[:HEADER_BYTES] + b"\xdc\xff\xff" + _GOOD[HEADER_BYTES + 1 :],
    "endless records": _GOOD[:HEADER_BYTES] + b"\xdd\xff\xff\xff\xff" + _GOOD[HEADER_BYTES + 1 :],
    "endless record": _GOOD.replace(b"\xc4\x08", b"\xc6\xff\xff\xff\xff", 1),
    "topic that is not UTF-8": _envelope(topic="x").replace(b"\xa1x", b"\xa1\xff"),
}
"""Records of a stream that cannot be read."""

ABSURD = {
    "number": _envelope(b"poison", first=2**63),
    "previous number": _envelope(b"poison", first=2**63 + 1, previous=2**64 - 1),
    "time": _envelope(b"poison", first=2**63 + 2, time_ms=2**64 - 1, key="k"),
    "history": _envelope(b"poison", first=2**63 + 3, size=2**32 - 1, ttl_ms=2**64 - 1),
    "topic": _envelope(b"poison", first=2**63 + 4, topic="+/\0/#"),
    "empty topic": _envelope(b"poison", first=2**63 + 5, topic=""),
    "no records": _envelope(drafts=[]),
    "control message": _envelope(kind=Kind.CONTROL, drafts=[]),
    "large number": _envelope(b"1 msgpack\n\xcf\xff", first=2**63 + 6),
}
"""Records of a stream that can be read, with values that no node writes."""


@asynccontextmanager
async def _node(broker: LogBroker, channel: str) -> AsyncIterator[tuple[WebSocketManager, Server]]:
    manager = WebSocketManager(channel, broker=broker)
    async with serve(chat_app(manager)) as server:
        yield manager, server


async def _receive_until(client: Client, data: object) -> list[str]:
    """Receive up to a message with this data. Return the kinds of the frames before it."""
    kinds = []
    while (frame := await client.receive()).get("data") != data:
        kinds.append(frame["type"])
    return kinds


async def check_hostile_log(
    make_broker: Callable[[], LogBroker],
    channel: str,
    inject: Callable[[bytes], Awaitable[None]],
    records: Iterable[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Write records into the log of a channel with one partition, next to the messages of two nodes.

    Args:
        make_broker: Returns a new broker.
        channel: Name of the channel.
        inject: Writes a record, as another program does.
        records: The records.
        caplog: The log, which must contain no error.
    """
    caplog.set_level(logging.WARNING)
    async with _node(make_broker(), channel) as (first, server), Client.open(f"{server.url}/ws/a") as live:
        cursor = (await connect(live, "t", "#"))["cursor"]
        await first.publish("t", 1)
        assert await _receive_until(live, 1) == []
        for record in records:
            await inject(record)
        for _ in range(2):
            await first.publish("t", 2, key="k")
        assert set(await _receive_until(live, 2)) <= {"gap"}
        await _check_new_node(make_broker(), channel, cursor, live)
        assert (await live.request(type="send", topic="quiet", data=1))["type"] == "ack"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def _check_new_node(broker: LogBroker, channel: str, cursor: str, live: Client) -> None:
    """A node that starts behind the records resumes, returns the history, and publishes."""
    async with _node(broker, channel) as (second, server), Client.open(f"{server.url}/ws/b") as client:
        answer = await connect(client, "t", "#", cursor=cursor)
        assert answer["type"] == "connected"
        await second.publish("t", 3)
        assert set(await _receive_until(live, 3)) <= {"pos", "gap"}
        kinds = await _receive_until(client, 3)
        assert "gap" in kinds or answer["recovered"] is True
        history = await client.request(type="history", topic="t", limit=10**9)
        assert [message["data"] for message in history["messages"]][-2:] == [2, 3]
        assert len(await second.history("t", limit=1)) == 1
