"""Recovering connections: live records are held back for them, at a cost that does not grow with their number."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

from dws_core._log.records import Record
from dws_core._node.recovery.attachments import Attachment, Attachments

RECORD = Record(offset=1, topic="t", payload=b"", ts_ms=0, publisher=b"p", seq=1)


class Recovering:
    """A recovery of one partition that collects its records."""

    def __init__(self, partition: int = 0) -> None:
        self.partitions = (partition,)
        self.held: list[Record] = []

    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        self.held.append(record)


def add(attachments: Attachments, connection: str, partition: int = 0) -> tuple[Attachment, Recovering]:
    recovery = Recovering(partition)
    attachment = Attachment(cast("Any", connection), cast("Any", recovery))
    attachments.add(attachment)
    return attachment, recovery


def test_record_is_held_back_for_recovering_receivers() -> None:
    attachments = Attachments()
    _, mine = add(attachments, "recovering")
    _, other = add(attachments, "other partition", partition=1)
    _, uninterested = add(attachments, "uninterested")
    receivers = cast("Any", ("live", "recovering", "other partition"))
    assert attachments.hold_back(receivers, 0, "e", RECORD) == ("live", "other partition")
    assert (mine.held, other.held, uninterested.held) == ([RECORD], [], [])


def test_receivers_that_are_live_stay_same_object() -> None:
    """The fan-out has a plan for each sequence of receivers."""
    attachments = Attachments()
    add(attachments, "a", partition=1)
    for receivers in (("live",), ("live", "a")):
        assert attachments.hold_back(cast("Any", receivers), 0, "e", RECORD) is receivers


def test_cost_does_not_grow_with_recovering_connections() -> None:
    """Compare the number of Python calls, which does not depend on the speed of the machine."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def cost(recovering: int) -> int:
        nonlocal calls
        attachments, calls = Attachments(), 0
        for number in range(recovering):
            add(attachments, f"c{number}")
        calls = 0
        sys.setprofile(count)
        try:
            attachments.hold_back(cast("Any", ("live", "c0")), 0, "e", RECORD)
            attachments.on_advance()
        finally:
            sys.setprofile(None)
        return calls

    assert cost(1_000) == cost(1)


async def test_waiting_replay_continues_when_log_advances() -> None:
    attachments = Attachments()
    attachment, _ = add(attachments, "a")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(attachments.wait_for_progress(attachment))
        await asyncio.sleep(0)
        assert not waiting.done()
        attachments.on_advance()
    assert not attachments._waiting
