"""Every sending method delivers once, from each place where FastAPI runs functions."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import anyio.from_thread
import anyio.to_thread
import pytest
import uvloop
from fastapi import BackgroundTasks, Depends, FastAPI
from support.apps import chat
from support.servers import HANG_S, Client, Server, serve

from dws_core import (
    BrokerClosed,
    CodecError,
    ConfigurationError,
    InvalidTopic,
    Message,
    PendingPublish,
    WebSocketManager,
)

Send: TypeAlias = Callable[[], PendingPublish]
Place: TypeAlias = Callable[[FastAPI, Server, Send], Awaitable[Any]]

SENDS: dict[str, Callable[[WebSocketManager], Send]] = {
    "publish": lambda manager: lambda: manager.publish("t", 1),
    "broadcast": lambda manager: lambda: manager.broadcast(1),
    "send_to": lambda manager: lambda: manager.send_to("a", 1),
    "send": lambda manager: lambda: manager.send(Message(typ="send", topic="t", data=1)),
    "send_msg": lambda manager: lambda: manager.send_msg(Message(typ="broadcast", data=1)),
    "send_by_conn_id": lambda manager: (
        lambda: manager.send_by_conn_id(Message(typ="send_by_conn_id", conn_id="a", data=1))
    ),
}


async def _get(server: Server, path: str) -> None:
    url = server.url.replace("ws://", "http://") + path
    status = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=HANG_S).status)
    assert status == 200


async def plainly(_: FastAPI, __: Server, send: Send) -> None:
    send()


async def awaited(_: FastAPI, __: Server, send: Send) -> None:
    await send()


async def in_def_route(app: FastAPI, server: Server, send: Send) -> None:
    @app.get("/plain")
    def plain() -> None:
        send()

    await _get(server, "/plain")


async def in_def_route_with_result(app: FastAPI, server: Server, send: Send) -> None:
    @app.get("/stored")
    def stored() -> int:
        return len(send().result(timeout_s=HANG_S))

    await _get(server, "/stored")


async def in_async_route(app: FastAPI, server: Server, send: Send) -> None:
    @app.get("/async")
    async def route() -> None:
        send()

    await _get(server, "/async")


async def in_to_thread(_: FastAPI, __: Server, send: Send) -> None:
    await asyncio.to_thread(send)


async def in_anyio_thread(_: FastAPI, __: Server, send: Send) -> None:
    await anyio.to_thread.run_sync(send)


async def in_anyio_portal(_: FastAPI, __: Server, send: Send) -> None:
    await anyio.to_thread.run_sync(anyio.from_thread.run, send)


async def in_plain_thread(_: FastAPI, __: Server, send: Send) -> None:
    thread = threading.Thread(target=send)
    thread.start()
    await asyncio.to_thread(thread.join, HANG_S)


async def in_joined_thread(_: FastAPI, __: Server, send: Send) -> None:
    """The event loop waits for the thread, so the thread must not wait for the event loop."""
    thread = threading.Thread(target=send)
    thread.start()
    thread.join(HANG_S)


async def in_other_loop(_: FastAPI, __: Server, send: Send) -> None:
    async def elsewhere() -> None:
        await send()

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))


async def as_argument_of_run(_: FastAPI, __: Server, send: Send) -> None:
    await asyncio.to_thread(lambda: asyncio.run(send()))


async def in_run_coroutine_threadsafe(_: FastAPI, __: Server, send: Send) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(send(), loop).result(HANG_S))


async def in_uvloop(_: FastAPI, __: Server, send: Send) -> None:
    async def elsewhere() -> None:
        await send()

    await asyncio.to_thread(lambda: uvloop.run(elsewhere()))


async def in_blocking_portal(_: FastAPI, __: Server, send: Send) -> None:
    def call() -> None:
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(send)

    await asyncio.to_thread(call)


async def in_dependency_teardown(app: FastAPI, server: Server, send: Send) -> None:
    def dependency() -> Iterator[None]:
        yield
        send().result(timeout_s=HANG_S)

    @app.get("/teardown", dependencies=[Depends(dependency)])
    def route() -> None: ...

    await _get(server, "/teardown")


async def in_cancelled_task(_: FastAPI, __: Server, send: Send) -> None:
    """The publish has started, so cancelling the wait does not take it back."""
    task = asyncio.get_running_loop().create_task(send())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def in_task(_: FastAPI, __: Server, send: Send) -> None:
    await asyncio.get_running_loop().create_task(send())


async def in_task_group(_: FastAPI, __: Server, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(send())


async def in_anyio_task_group(_: FastAPI, __: Server, send: Send) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(send)


async def in_gather(_: FastAPI, __: Server, send: Send) -> None:
    await asyncio.gather(send())


async def in_wait_for(_: FastAPI, __: Server, send: Send) -> None:
    await asyncio.wait_for(send(), HANG_S)


async def in_callback(_: FastAPI, __: Server, send: Send) -> None:
    asyncio.get_running_loop().call_soon(send)


PLACES: list[Place] = [
    plainly, awaited, in_def_route, in_def_route_with_result, in_async_route, in_to_thread, in_anyio_thread,
    in_anyio_portal, in_plain_thread, in_joined_thread, in_other_loop, as_argument_of_run, in_run_coroutine_threadsafe,
    in_uvloop, in_blocking_portal, in_dependency_teardown, in_cancelled_task, in_task, in_task_group,
    in_anyio_task_group, in_gather, in_wait_for, in_callback,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
async def test_message_is_delivered_once(send: Callable[[WebSocketManager], Send], place: Place) -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        await client.subscribe("end")
        await place(app, server, send(manager))
        received = (await client.receive())["data"]
        await manager.publish("end", "end")
        assert [received, (await client.receive())["data"]] == [1, "end"]


@pytest.mark.parametrize("name", ["publish", "broadcast"])
async def test_background_task_delivers(name: str) -> None:
    """The function itself is passed, so FastAPI decides how to call it."""
    manager, app = chat()
    arguments = ("t", 1) if name == "publish" else (1,)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(getattr(manager, name), *arguments)

    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        await _get(server, "/background")
        assert (await client.receive())["data"] == 1


async def test_invalid_message_is_refused_in_the_thread() -> None:
    manager, app = chat()
    async with serve(app):
        with pytest.raises(InvalidTopic):
            await asyncio.to_thread(manager.publish, "a/#", 1)
        with pytest.raises(CodecError):
            await asyncio.to_thread(manager.publish, "t", object())


async def test_failure_from_a_thread_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    manager, app = chat()
    async with serve(app):
        await manager.broker.stop()  # type: ignore[union-attr]  # the memory broker has it
        with pytest.raises(BrokerClosed):
            await asyncio.to_thread(lambda: manager.publish("t", 1).result(HANG_S))
        await asyncio.to_thread(manager.publish, "t", 1)
        with pytest.raises(BrokerClosed):
            await manager.publish("t", 2)
    assert "publish to 't' failed" in caplog.text


def test_publish_without_node_and_loop_is_refused() -> None:
    manager, _ = chat()
    with pytest.raises(BrokerClosed, match="the node is not started"):
        manager.publish("t", 1)


async def test_await_without_asyncio_names_result() -> None:
    """For example in trio."""
    manager, app = chat()
    async with serve(app):

        def step() -> None:
            with pytest.raises(ConfigurationError, match=r"Fix: use result\(\)"):
                manager.publish("t", 1).send(None)

        await asyncio.to_thread(step)


async def test_order_of_one_thread_is_kept() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")

        def publish_all() -> None:
            for number in range(500):
                manager.publish("t", number)

        await asyncio.to_thread(publish_all)
        assert [(await client.receive())["data"] for _ in range(500)] == list(range(500))
