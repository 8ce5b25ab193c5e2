"""The Python client with a scripted node: resuming, gaps, lost replies and closing."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from support.clients import Gaps, client, receive_data
from support.scripted import ScriptedConnection, scripted
from support.servers import HANG_S

from dws_core import (
    ConnectionClosed,
    PublishOutcomeUnknown,
    WebSocketException,
)
from dws_core._log.backoff import Backoff
from dws_core.client import Client, Gap, Refused, Subscription


async def test_client_resumes_after_lost_connection() -> None:
    hellos: list[dict[str, Any]] = []

    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect("0:e:3,1:e:8")
        asked = await node.receive("subscribe")
        await node.send(type="ack", id=asked["id"], cursor="0:e:4,1:e:8")
        await node.message(5, "five")
        await node.socket.close(4000, "too slow")

    async def second(node: ScriptedConnection) -> None:
        hellos.append(await node.accept_connect("0:e:5,1:e:8", recovered=True))
        await node.message(6, "six")
        await node.send(type="pos", cursor="0:e:60")

    async def third(node: ScriptedConnection) -> None:
        hellos.append(await node.accept_connect("0:e:60,1:e:8", recovered=True))
        await node.message(61, "last")

    drop = asyncio.Event()

    async def second_until_dropped(node: ScriptedConnection) -> None:
        await second(node)
        await drop.wait()
        node.socket.transport.abort()

    gaps = Gaps()
    async with scripted(first, second_until_dropped, third) as url, client(url, on_gap=gaps) as alice:
        assert alice.conn_id == "me"
        async with alice.subscribe("t") as messages:
            assert await receive_data(messages, 2) == ["five", "six"]
            drop.set()
            assert await receive_data(messages, 1) == ["last"]
        assert alice.cursor == "0:e:61,1:e:8"
    assert gaps == []
    assert hellos == [{"filters": ["t"], "cursor": "0:e:5,1:e:8"}, {"filters": ["t"], "cursor": "0:e:60,1:e:8"}]


async def test_gap_is_reported_and_client_continues() -> None:
    async def node_after_a_loss(node: ScriptedConnection) -> None:
        data = await node.accept_connect("0:new:7", recovered=False)
        assert data == {"filters": ["t"], "cursor": "0:old:99"}
        await node.send(type="gap", filters=["t"], reason="epoch", cursor="0:new:7")
        await node.send(type="message", topic="t", data="fresh", pos="0:new:8")

    gaps = Gaps()
    async with scripted(node_after_a_loss) as url:
        alice = client(url, cursor="0:old:99", on_gap=gaps)
        messages = alice.subscribe("t")
        async with alice, messages:
            assert await receive_data(messages, 1) == ["fresh"]
            assert gaps == [Gap(filters=("t",), reason="epoch")]
            assert alice.cursor == "0:new:8"


async def test_async_gap_callback_may_use_client() -> None:
    """An error in the callback does not affect the client."""
    loaded: list[str] = []

    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        for reason in ("trimmed", "epoch", "ahead"):
            await peer.send(type="gap", filters=["t"], reason=reason, cursor="0:e:1")
        asked = await peer.receive("history")
        await peer.send(type="history", id=asked["id"], topic="t", messages=[{"data": "x", "pos": "0:e:1"}], cursor="")
        await peer.message(2, "on")

    async def reload(gap: Gap) -> None:
        if gap.reason != "trimmed":
            raise RuntimeError("an application's mistake")
        loaded.extend(f"{m.data} at {m.position}" for m in await alice.history("t", limit=5))
        done.set()

    done = asyncio.Event()
    async with scripted(node) as url:
        alice = client(url, on_gap=reload)
        messages = alice.subscribe("t")
        async with alice:
            assert await receive_data(messages, 1) == ["on"]
            await asyncio.wait_for(done.wait(), HANG_S)
    assert loaded == ["x at 0:e:1"]


async def test_unanswered_publish_is_repeated_with_same_key() -> None:
    sends: list[dict[str, Any]] = []

    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect()
        sends.append(await node.receive("send"))
        node.socket.transport.abort()

    async def second(node: ScriptedConnection) -> None:
        await node.accept_connect(recovered=True)
        sends.append(await node.receive("send"))
        await node.send(type="ack", id=sends[1]["id"], pos="0:e:1")

    async with scripted(first, second) as url, client(url) as alice:
        assert await alice.publish("t", "once") == "0:e:1"
    assert sends[0] == sends[1]
    assert sends[0]["key"]


async def test_temporary_refusal_is_retried_with_same_key() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        first = await peer.receive("send")
        refusal = {"code": "unavailable", "message": "no", "temporary": True, "retry_in_s": 0.001}
        await peer.send(type="error", id=first["id"], **refusal)
        again = await peer.receive("send")
        assert again["key"] == first["key"]
        assert again["id"] != first["id"]
        await peer.send(type="ack", id=again["id"])

    async with scripted(node) as url, client(url) as alice:
        assert await alice.publish("t", 1) is None


async def test_publish_without_reply_has_unknown_outcome() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        await peer.receive("send")

    async with scripted(node) as url, client(url) as alice:
        with pytest.raises(PublishOutcomeUnknown, match="'t'"):
            await alice.publish("t", 1, timeout_s=0.05)


async def test_offline_publishes_are_sent_in_order() -> None:
    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect()
        await node.socket.close(1012)

    async def second(node: ScriptedConnection) -> None:
        offline.set()
        await asyncio.wait_for(asked.wait(), HANG_S)
        await node.accept_connect(recovered=True)
        for n in range(20):
            frame = await node.receive("send")
            assert frame["data"] == n
            await node.send(type="ack", id=frame["id"])

    asked, offline = asyncio.Event(), asyncio.Event()
    async with scripted(first, second) as url, client(url) as alice:
        await asyncio.wait_for(offline.wait(), HANG_S)
        assert not alice.connected
        async with asyncio.TaskGroup() as publishes:
            for n in range(20):
                publishes.create_task(alice.publish("t", n))
            asked.set()


@pytest.mark.parametrize("code", [4500, 4503, 1008])
async def test_permanent_close_code_ends_client(code: int) -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        await peer.message(1, "last words")
        await peer.receive("send")
        await peer.socket.close(code, "go away")

    async with scripted(node) as url:
        alice = client(url)
        messages = alice.subscribe("t")
        async with alice:
            with pytest.raises(ConnectionClosed, match="go away") as closed:
                await alice.publish("t", 1)
            assert closed.value.code == code
            assert await receive_data(messages, 1) == ["last words"], "what came before is not lost"
            with pytest.raises(ConnectionClosed):
                await receive_data(messages, 1)
            with pytest.raises(ConnectionClosed):
                await alice.history("t")


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4001, 4002, 4003])
async def test_other_close_code_reconnects(code: int) -> None:
    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect()
        await node.socket.close(code)

    async def second(node: ScriptedConnection) -> None:
        await node.accept_connect(recovered=True)
        came_back.set()

    came_back = asyncio.Event()
    async with scripted(first, second) as url, client(url):
        await asyncio.wait_for(came_back.wait(), HANG_S)


async def test_client_leaves_draining_node_on_request() -> None:
    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect()
        await node.send(type="reconnect", in_s=0.01)
        assert await node.wait_closed() == 1000

    async def second(node: ScriptedConnection) -> None:
        await node.accept_connect(recovered=True)
        came_back.set()

    came_back = asyncio.Event()
    slow = Backoff(first_s=1_000, max_s=1_000)  # not used, because the node asks for the reconnect
    async with scripted(first, second) as url, Client(url, proxy=False, backoff=slow):
        await asyncio.wait_for(came_back.wait(), HANG_S)


async def test_expiring_token_is_refreshed_on_open_connection() -> None:
    async def node(peer: ScriptedConnection) -> None:
        assert peer.socket.request is not None
        assert peer.socket.request.headers["Authorization"] == "Bearer one"
        await peer.accept_connect()
        await peer.send(type="expiring", in_s=30)
        asked = await peer.receive("refresh")
        assert asked["data"] == {"token": "two"}
        await peer.send(type="error", id=asked["id"], code="unknown-type", message="not here", temporary=False)
        done.set()

    done = asyncio.Event()
    tokens = iter(["one", "two"])
    async with scripted(node) as url, client(url, token=lambda: next(tokens)):
        await asyncio.wait_for(done.wait(), HANG_S)


async def test_refresh_ends_with_its_connection() -> None:
    """The next connection has sent a new token in its handshake, so the old request is not repeated."""

    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect()
        await node.send(type="expiring", in_s=30)
        await node.receive("refresh")
        await node.socket.close(4002)

    async def second(node: ScriptedConnection) -> None:
        await node.accept_connect(recovered=True)
        await node.send(type="expiring", in_s=30)
        assert (await node.receive("refresh"))["data"] == {"token": "token-4"}
        done.set()

    done, numbers = asyncio.Event(), count(1)
    async with scripted(first, second) as url, client(url, token=lambda: f"token-{next(numbers)}"):
        await asyncio.wait_for(done.wait(), HANG_S)


async def test_fixed_token_is_not_refreshed() -> None:
    async def node(peer: ScriptedConnection) -> None:
        await peer.accept_connect()
        await peer.send(type="expiring", in_s=30)
        await peer.receive("send")  # and not `refresh`

    async with scripted(node) as url, client(url, token="one") as alice:
        with pytest.raises(PublishOutcomeUnknown):
            await alice.publish("t", 1, timeout_s=0.1)


async def test_invalid_frame_only_closes_connection() -> None:
    async def first(node: ScriptedConnection) -> None:
        await node.accept_connect()
        await node.socket.send("{not json")

    async def second(node: ScriptedConnection) -> None:
        await node.accept_connect(recovered=True)
        await node.send(type="message")

    async def third(node: ScriptedConnection) -> None:
        await node.accept_connect(recovered=True)
        await node.message(1, "well")

    async with scripted(first, second, third) as url:
        alice = client(url)
        messages = alice.subscribe("t")
        async with alice:
            assert await receive_data(messages, 1) == ["well"]


async def test_rejected_filters_raise_on_enter() -> None:
    async def node(peer: ScriptedConnection) -> None:
        hello = await peer.receive("connect")
        await peer.send(type="error", id=hello["id"], code="forbidden", message="not yours", temporary=False)

    async with scripted(node) as url:
        alice = client(url)
        alice.subscribe("secret")
        with pytest.raises(Refused, match="not yours"):
            await alice.__aenter__()


async def _error_of(awaitable: Any) -> BaseException | None:
    try:
        await awaitable
    except (ConnectionClosed, WebSocketException) as error:
        return error
    return None


async def _all(subscription: Subscription) -> list[Any]:
    return [message.data async for message in subscription]
