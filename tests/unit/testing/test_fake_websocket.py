from __future__ import annotations

import asyncio

import pytest
from fastapi import WebSocketDisconnect
from starlette.responses import PlainTextResponse

from dws_core.testing import FakeWebSocket


async def test_application_sees_handshake() -> None:
    socket = FakeWebSocket(
        "/chat/ü",
        headers={"Authorization": "Bearer x", "Cookie": "a=1"},
        query_string="room=7",
        subprotocols=["dws.v1.json"],
        host="example.org",
    )
    assert socket.url.path == "/chat/ü"
    assert socket.headers["authorization"] == "Bearer x"
    assert socket.headers["host"] == "example.org"
    assert socket.query_params["room"] == "7"
    assert socket.cookies == {"a": "1"}
    assert socket.scope["subprotocols"] == ["dws.v1.json"]


async def test_frames_travel_both_ways() -> None:
    socket = FakeWebSocket()
    assert not socket.accepted
    await socket.accept(subprotocol="dws.v1.json")
    assert socket.accepted
    assert socket.subprotocol == "dws.v1.json"
    socket.client_sends("text")
    socket.client_sends(b"bytes")
    socket.client_sends_json({"a": [1]})
    assert await socket.receive_text() == "text"
    assert await socket.receive_bytes() == b"bytes"
    assert await socket.receive_json() == {"a": [1]}
    await socket.send_text("")
    await socket.send_bytes(b"b")
    await socket.send_json({"c": 1})
    assert socket.frames == ["", b"b", '{"c":1}']
    assert [await socket.next_frame(), await socket.next_frame(), await socket.next_json()] == ["", b"b", {"c": 1}]


async def test_next_frame_times_out() -> None:
    socket = FakeWebSocket()
    with pytest.raises(TimeoutError, match="waited 0 s for a frame of the application, which has sent: nothing"):
        await socket.next_frame(within_s=0)
    await socket.accept()
    with pytest.raises(TimeoutError, match=r"which has sent: websocket\.accept"):
        await socket.next_json(within_s=0)


async def test_closed_gate_blocks_application_sends() -> None:
    socket = FakeWebSocket()
    await socket.accept()
    socket.gate.clear()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(socket.send_text("late"))
        await asyncio.sleep(0)
        assert not sending.done()
        assert socket.frames == []
        socket.gate.set()
    assert socket.frames == ["late"]


async def test_client_leave_fails_send_and_receive() -> None:
    socket = FakeWebSocket()
    await socket.accept()
    socket.gate.clear()
    socket.client_leaves(1001, "bye")
    with pytest.raises(WebSocketDisconnect) as caught:
        await socket.send_text("x")
    assert caught.value.code == 1006
    assert await socket.receive() == {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}
    assert socket.frames == []


async def test_close_code_and_denial_status_are_readable() -> None:
    closed, refused = FakeWebSocket(), FakeWebSocket()
    assert (closed.close_code, closed.refused_with) == (None, None)
    await closed.accept()
    await closed.close(4001)
    assert closed.close_code == 4001
    await refused.receive()
    await refused.send_denial_response(PlainTextResponse("no", status_code=401))
    assert refused.refused_with == 401
    assert not refused.accepted
