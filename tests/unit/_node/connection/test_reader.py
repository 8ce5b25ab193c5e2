"""The inbox between the reader and the handler."""

from __future__ import annotations

import asyncio

import pytest
from support.timeouts import HANG_S

from dws_core._node.connection.reader import Inbox, InboxEnded


async def test_messages_arrive_in_order_before_end() -> None:
    inbox = Inbox(10)
    inbox.put(1)
    inbox.put(2)
    inbox.end()
    assert [await inbox.get(), await inbox.get()] == [1, 2]
    with pytest.raises(InboxEnded):
        await inbox.get()


async def test_waiting_handler_and_reader_are_both_woken() -> None:
    inbox = Inbox(1)
    got: list[object] = []

    async def handler() -> None:
        got.extend([await inbox.get() for _ in range(3)])

    async with asyncio.TaskGroup() as group:
        group.create_task(handler())
        for number in range(3):
            assert await inbox.room(5)
            inbox.put(number)
    assert got == [0, 1, 2]


async def test_all_waiting_handlers_are_woken_at_the_end() -> None:
    inbox = Inbox(10)
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        waiting = [group.create_task(_get(inbox)) for _ in range(3)]
        await asyncio.sleep(0)
        inbox.put(1)
        inbox.put(2)
        inbox.end()
    assert sorted(str(task.result()) for task in waiting) == ["1", "2", "ended"]


async def test_cancelled_handler_leaves_message_to_another() -> None:
    """It was woken for the message already."""
    inbox = Inbox(10)
    first, second = (asyncio.get_running_loop().create_task(_get(inbox)) for _ in range(2))
    await asyncio.sleep(0)
    inbox.put(1)
    first.cancel()
    async with asyncio.timeout(HANG_S):
        assert await second == 1
    assert first.cancelled()


async def _get(inbox: Inbox) -> object:
    try:
        return await inbox.get()
    except InboxEnded:
        return "ended"


async def test_room_times_out_if_inbox_stays_full() -> None:
    inbox = Inbox(1)
    inbox.put(1)
    assert inbox.full
    assert not await inbox.room(0.01)


async def test_cancelled_get_loses_no_message() -> None:
    inbox = Inbox(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.get(), 0.01)
    inbox.put(1)
    assert await inbox.get() == 1
