"""Requests of the application to clients on any node, and their replies."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI, WebSocket
from support.apps import chat, chat_app
from support.asking import asking, receive_request, reply
from support.resume import connect, receive_replay
from support.servers import HANG_S, Client, serve
from support.two_nodes import BROKERS, MakeBroker, serve_two_nodes

from dws_core import (
    BrokerClosed,
    BrokerUnavailable,
    CodecError,
    ConfigurationError,
    InvalidMessage,
    NoReply,
    Principal,
    WebSocketManager,
)
from dws_core._node.asking import requester
from dws_core._node.sending.shared_message import SharedRequest
from dws_core._wire.codecs import JSONCodec
from dws_core._wire.node_topics import conn_request_topic
from dws_core.plugin import Record
from dws_core.testing import FaultyBroker

# -- a request and its reply


@BROKERS
async def test_client_on_other_node_replies(make_broker: MakeBroker) -> None:
    async with serve_two_nodes(make_broker) as (first, second):
        async with Client.open(f"{second.url}/ws/bob%20%26%20co") as bob:
            async with asking(first.manager.request("bob & co", {"question": 1}, timeout_s=HANG_S)) as task:
                frame = await bob.receive()
                expected = {"type": "request", "reply_to": frame["reply_to"], "timeout_s": HANG_S}
                assert frame == {**expected, "data": {"question": 1}}
                answer = await reply(bob, frame["reply_to"], {"answer": 2})
                assert answer == {"type": "ack", "id": answer["id"]}
                assert await task == {"answer": 2}
            async with asking(second.manager.request("bob & co", timeout_s=HANG_S)) as task:
                frame = await bob.receive()
                assert frame["data"] is None
                await bob.send(type="reply", to=frame["reply_to"], answer=3)
                assert await task == {"answer": 3}, "without data, the other members are the data"


async def test_handler_may_ask_its_own_client() -> None:
    """The reply does not wait behind the handler that waits for it, and other messages wait for the handler."""
    manager = WebSocketManager("chat", broker_url="memory://")
    app = FastAPI(lifespan=manager.lifespan)
    seen: list[Any] = []

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            seen.append(await manager.request(connection.id, "your name?", timeout_s=HANG_S))
            seen.append(await connection.receive_json())
            await connection.send_json("done")

    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        frame = await receive_request(client)
        await client.send(type="ping")
        await client.send(type="reply", to=frame["reply_to"], data="Ann")
        assert await client.receive() == "done"
    assert seen == ["Ann", {"type": "ping"}]


async def test_first_reply_is_returned_and_others_are_ignored() -> None:
    async with serve_two_nodes("memory://first") as (first, second):
        async with Client.open(f"{first.url}/ws/ann") as near, Client.open(f"{second.url}/ws/ann") as far:
            async with asking(first.manager.request("ann", "?", timeout_s=HANG_S)) as task:
                frames = [await receive_request(client) for client in (near, far)]
                assert (await reply(far, frames[1]["reply_to"], "far"))["type"] == "ack"
                assert await task == "far"
                assert (await reply(near, frames[0]["reply_to"], "near"))["type"] == "ack"


async def test_all_replies_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on replies ends the request here, so that the test does not wait for its time limit."""
    monkeypatch.setattr(requester, "_MAX_REPLIES", 2)
    async with serve_two_nodes("memory://all") as (first, second):
        async with Client.open(f"{first.url}/ws/ann") as near, Client.open(f"{second.url}/ws/ann") as far:
            async with asking(first.manager.request("ann", "?", replies="all", timeout_s=HANG_S)) as task:
                for client, data in ((far, "far"), (near, "near")):
                    await reply(client, (await receive_request(client))["reply_to"], data)
                assert sorted(await task) == ["far", "near"]
        assert await first.manager.request("nobody", "?", replies="all", timeout_s=0.01) == []


async def test_user_is_asked_on_all_connections() -> None:
    async def verify(token: str) -> Principal:
        return Principal(id=token)

    headers = {"Authorization": "Bearer Ann Lee"}
    async with serve_two_nodes("memory://user", verify_token=verify) as (first, second):
        async with (
            Client.open(f"{first.url}/ws/phone", additional_headers=headers) as phone,
            Client.open(f"{second.url}/ws/laptop", additional_headers=headers) as laptop,
            Client.open(f"{second.url}/ws/Ann%20Lee", additional_headers={"Authorization": "Bearer Bo"}) as other,
        ):
            async with asking(first.manager.request(user="Ann Lee", data="?", timeout_s=HANG_S)) as task:
                await receive_request(phone)
                await reply(laptop, (await receive_request(laptop))["reply_to"], "from the laptop")
                assert await task == "from the laptop"
            await other.send(type="ping")
            assert await other.receive() == {"type": "pong"}


async def test_msgpack_client_and_json_client_are_asked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requester, "_MAX_REPLIES", 2)
    manager, app = chat()
    async with (
        serve(app) as server,
        Client.open(f"{server.url}/ws/a") as a,
        Client.open(f"{server.url}/ws/a", subprotocols=["dws.v1.msgpack"]) as b,
    ):
        async with asking(manager.request("a", {"é": 1.5}, replies="all", timeout_s=HANG_S)) as task:
            frame = msgspec.msgpack.decode(await b.socket.recv())
            assert frame == {**await receive_request(a), "data": {"é": 1.5}}
            await b.socket.send(msgspec.msgpack.encode({"type": "reply", "to": frame["reply_to"], "data": b"\x00"}))
            await a.send(type="reply", to=frame["reply_to"], data="json")
            assert sorted(await task, key=str) == ["AA==", "json"]


async def test_request_may_come_from_other_event_loop() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        ask = asyncio.to_thread(lambda: asyncio.run(manager.request("a", 1, timeout_s=HANG_S)))
        async with asking(ask) as task:
            await reply(client, (await receive_request(client))["reply_to"], 2)
            assert await task == 2


async def test_requests_leave_no_history() -> None:
    manager, app = chat()
    broker = manager._settings.broker
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/a") as client:
            cursor = (await connect(client, "#"))["cursor"]
            heads = await broker.heads([0])
            async with asking(manager.request("a", 1, timeout_s=HANG_S)) as task:
                await reply(client, (await receive_request(client))["reply_to"], 2)
                assert await task == 2
            assert await broker.heads([0]) == heads
        async with Client.open(f"{server.url}/ws/a") as client:
            answer = await connect(client, "#", cursor=cursor)
            assert (answer["recovered"], answer["cursor"]) == (True, cursor)
            assert await receive_replay(client) == []


# -- no reply


async def test_missing_reply_raises_after_the_time() -> None:
    """A client that never answers, and a late reply."""
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/mute") as mute:
        for wanted in ({"conn_id": "mute"}, {"conn_id": "nobody"}, {"user": "nobody"}):
            with pytest.raises(NoReply, match=r"no reply from (connection|user) '\w+' within 0\.01 s") as caught:
                await manager.request(data=1, timeout_s=0.01, **wanted)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.timeout_s == 0.01
        to = (await receive_request(mute))["reply_to"]
        assert (await reply(mute, to, "late"))["code"] == "unknown-request"
        assert not manager._runtime.requester._pending
        assert not manager._runtime.responder._open


async def test_reply_after_the_first_is_refused() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", replies="all", timeout_s=HANG_S)):
            to = (await receive_request(client))["reply_to"]
            assert (await reply(client, to, 1))["type"] == "ack"
            error = await reply(client, to, 2)
            assert (error["code"], error["temporary"]) == ("unknown-request", False)


async def test_only_asked_connections_may_reply() -> None:
    """Another connection does not reply for them, on no node, even if it knows the text to repeat."""
    async with serve_two_nodes("memory://others") as (first, second):
        async with (
            Client.open(f"{first.url}/ws/ann") as ann,
            Client.open(f"{first.url}/ws/eve") as near,
            Client.open(f"{second.url}/ws/ann2") as far,
            asking(first.manager.request("ann", timeout_s=HANG_S)) as task,
        ):
            to = (await receive_request(ann))["reply_to"]
            for eve in (near, far):
                assert (await reply(eve, to, "evil"))["code"] == "unknown-request"
            await reply(ann, to, "good")
            assert await task == "good"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"data": 1}, "invalid-message"),
        ({"to": 1, "data": 1}, "invalid-message"),
        ({"to": ["x"]}, "invalid-message"),
        ({"to": "never sent"}, "unknown-request"),
    ],
)
async def test_malformed_reply_is_refused(members: dict[str, Any], code: str) -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        assert (await client.request(type="reply", **members))["code"] == code


async def test_malformed_reply_to_open_request_is_refused() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", timeout_s=HANG_S)) as task:
            to = (await receive_request(client))["reply_to"]
            error = await client.request(type="reply", to=to, topic=["not", "text"], data=1)
            assert error["code"] == "invalid-message"
            await reply(client, to, 2)
            assert await task == 2


# -- invalid requests and records


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ConfigurationError),
        ({"conn_id": "a", "user": "b"}, ConfigurationError),
        ({"conn_id": "a", "timeout_s": 0}, ConfigurationError),
        ({"conn_id": "a", "timeout_s": 3601}, ConfigurationError),
        ({"conn_id": "a", "timeout_s": float("nan")}, ConfigurationError),
        ({"conn_id": "a", "replies": "some"}, ConfigurationError),
        ({"conn_id": ""}, InvalidMessage),
        ({"user": "x" * 257}, InvalidMessage),
        ({"conn_id": "a", "data": object()}, CodecError),
    ],
)
async def test_invalid_request_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    manager, app = chat()
    async with serve(app):
        with pytest.raises(error):
            await manager.request(**arguments)
        assert not manager._runtime.requester._pending
    with pytest.raises(BrokerClosed, match="not started"):
        await manager.request("a")


async def test_request_that_codec_cannot_express_is_not_delivered() -> None:
    record = Record(
        offset=None, topic=conn_request_topic("a"), payload=b"2 other a=b\n1", ts_ms=0, publisher=b"", seq=1
    )
    assert SharedRequest(record, "r", 1.0, {}).frame(JSONCodec()) is None


@pytest.mark.parametrize("header", [b"1 json", b"2 json request=r&node=n&timeout_s=nan", b"2 json request=r&node=n"])
async def test_malformed_record_is_not_delivered(header: bytes) -> None:
    """Whatever other programs publish, the node continues."""
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        publish = manager._settings.broker.publish
        history = manager._settings.policy.of("$all")
        await publish(0, conn_request_topic("a"), header + b"\n1", history=history)
        await publish(0, manager._runtime.requester.topic, header + b"\n1", history=history)
        assert (await client.request(type="ping"))["type"] == "pong"
        assert client.frames == [{"type": "pong", "id": "r1"}]


async def test_repeated_record_is_delivered_once() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        payload = b"2 json request=r&node=n&timeout_s=60\n1"
        record = Record(offset=None, topic=conn_request_topic("a"), payload=payload, ts_ms=0, publisher=b"", seq=1)
        for _ in range(2):
            manager._runtime.tail_sink.on_records(0, "e", 0, 0, [record])
        await client.request(type="ping")
        assert [frame["type"] for frame in client.frames] == ["request", "pong"]


# -- failures


async def test_request_without_broker_fails_at_once() -> None:
    broker = FaultyBroker("memory://failing-request")
    manager = WebSocketManager("chat", broker=broker)
    async with serve(chat_app(manager)):
        with broker.refusing(), pytest.raises(BrokerUnavailable):
            await manager.request("a", timeout_s=HANG_S)


async def test_refused_reply_may_be_repeated() -> None:
    broker = FaultyBroker("memory://failing-reply")
    manager = WebSocketManager("chat", broker=broker)
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", timeout_s=HANG_S)) as task:
            to = (await receive_request(client))["reply_to"]
            with broker.refusing():
                error = await reply(client, to, 1)
                assert (error["code"], error["temporary"]) == ("unavailable", True)
            await reply(client, to, 2)
            assert await task == 2


async def test_node_that_asks_may_stop() -> None:
    """The request fails at once, and the client is still answered."""
    one, first_app = chat("memory://asker")
    _, second_app = chat("memory://asker")
    async with serve(second_app) as second, Client.open(f"{second.url}/ws/a") as client:
        async with serve(first_app), asking(one.request("a", timeout_s=HANG_S)) as task:
            to = (await receive_request(client))["reply_to"]
            await one.shutdown()
            with pytest.raises(BrokerClosed, match="the node was stopped"):
                await task
            assert (await reply(client, to, 1))["type"] == "ack"


async def test_client_that_changes_its_node_cannot_reply() -> None:
    """A request is not repeated. Its caller waits for the rest of the time."""
    one, first_app = chat("memory://replier")
    _, second_app = chat("memory://replier")
    async with serve(first_app) as first:
        async with serve(second_app) as second, Client.open(f"{second.url}/ws/a") as client:
            async with asking(one.request("a", timeout_s=HANG_S)) as task:
                to = (await receive_request(client))["reply_to"]
                await second.stop()
                async with Client.open(f"{first.url}/ws/a") as again:
                    assert (await reply(again, to, 1))["code"] == "unknown-request"
                assert not task.done()
