"""Messages that a codec cannot express are refused. Records that cannot be read are skipped with a gap."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
from support.apps import chat
from support.resume import slow_node
from support.servers import Client, Server, serve

from dws_core import CodecError, History, WebSocketManager

BIG = 10**30
RECORDS = {
    "too big for MessagePack": (b"1 json\n1000000000000000000000000000000", ["msgpack"]),
    "MessagePack extension": (b"1 msgpack\n\xd4\x05a", ["json"]),
    "unknown codec": (b"1 nobody\nx", ["json", "msgpack"]),
    "other version of the envelope": (b"3 json 7\n{}", ["json", "msgpack"]),
    "malformed data": (b"1 json\n{", ["msgpack"]),
}


class MsgpackClient(Client):
    """A client that uses MessagePack."""

    async def send(self, **members: Any) -> None:
        await self.socket.send(msgspec.msgpack.encode(members))

    async def receive(self) -> Any:
        return msgspec.msgpack.decode(await self.socket.recv())


def open_client(server: Server, codec: str) -> Any:
    kind = {"json": Client, "msgpack": MsgpackClient}[codec]
    return kind.open(f"{server.url}/ws/{codec}", subprotocols=[f"dws.v1.{codec}"])


async def store(manager: WebSocketManager, payload: bytes) -> None:
    """Store a record as another node would."""
    await manager.broker.publish(0, "t", payload, history=History())  # type: ignore[union-attr, call-arg, arg-type, misc]


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("json", BIG),
        ("json", {"deep": [{"in": -(2**63) - 1}]}),
        ("msgpack", msgspec.msgpack.Ext(5, b"a")),
        ("msgpack", [{(1, 2): 3}]),
    ],
)
@pytest.mark.parametrize("kind", ["send", "broadcast", "send_by_conn_id"])
async def test_data_that_one_codec_cannot_express_is_refused(codec: str, data: object, kind: str) -> None:
    manager, app = chat()
    async with serve(app) as server, open_client(server, codec) as client:
        answer = await client.exchange(type=kind, topic="t", conn_id="x", data=data, id=1)
        assert (answer["type"], answer["code"]) == ("error", "invalid-message")
        assert manager.stats().published == 0
        with pytest.raises(CodecError):
            manager.publish("t", data)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        (name, codec)
        for name in RECORDS
        for codec in ("json", "msgpack")
        if (name, codec) != ("malformed data", "json")  # passed on unchanged
    ],
)
async def test_unreadable_record_is_gap_in_its_place(name: str, codec: str) -> None:
    """In live delivery, in a replay and in a history. A node that met it still stops without an error."""
    payload, affected = RECORDS[name]
    _, manager, app = slow_node()
    async with serve(app) as server:
        async with open_client(server, codec) as client:
            cursor = (await client.exchange(type="connect", id=1, data={"filters": ["t", "#"]}))["cursor"]
            await manager.publish("t", 1)
            await store(manager, payload)
            await manager.publish("t", 3)
            live = [await client.receive() for _ in range(3)]
        async with open_client(server, codec) as client:
            again = await client.exchange(type="connect", id=1, data={"filters": ["t", "#"], "cursor": cursor})
            assert again["recovered"] is True
            assert [await client.receive() for _ in range(3)] == live
            assert (await client.receive())["type"] == "pos"
            history = await client.exchange(type="history", topic="t", limit=9, id=2)
        stored = await manager.history("t")
    first, middle, last = live
    assert (first["data"], last["data"]) == (1, 3)
    if codec in affected:
        position = first["pos"].rpartition(":")[0] + ":2"
        assert middle == {"type": "gap", "filters": ["t"], "reason": "unreadable", "cursor": position}
        assert ([message["data"] for message in history["messages"]], history["skipped"]) == ([1, 3], 1)
    else:
        assert middle["type"] == "message"
        assert len(history["messages"]) == 3
        assert "skipped" not in history
    assert [message.data for message in stored if message.data in (1, 3)] == [1, 3]


async def test_skipped_records_are_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dws_core._node.sending.shared_message._log_allowance._tokens", 1.0)
    caplog.set_level(logging.WARNING)
    manager, app = chat()
    async with serve(app) as server, open_client(server, "json") as client:
        await client.subscribe("t")
        for _ in range(5):
            await store(manager, b"2 json\n{}")
            assert (await client.receive())["reason"] == "unreadable"
    found = [record for record in caplog.records if "is skipped" in record.getMessage()]
    assert len(found) == 1
    assert found[0].exc_info is None
