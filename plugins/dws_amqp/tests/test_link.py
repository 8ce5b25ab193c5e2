"""What users find in the log when a connection ends: one line of dws, and no tracebacks of aiormq."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiormq
import pytest
from services.rabbitmq import PrivateRabbit
from support.timeouts import HANG_S

from dws_core import WebSocketManager


@contextmanager
def heard(text: str) -> Iterator[asyncio.Event]:
    """Yield an event that is set when dws logs a text."""
    event = asyncio.Event()
    handler = logging.Handler()
    handler.emit = lambda record: event.set() if text in record.getMessage() else None  # type: ignore[method-assign]
    logging.getLogger("dws").addHandler(handler)
    try:
        yield event
    finally:
        logging.getLogger("dws").removeHandler(handler)


def _restart(rabbit: PrivateRabbit) -> None:
    rabbit.kill()
    rabbit.start()


def _delete_streams(rabbit: PrivateRabbit) -> None:
    for name in rabbit.queues():
        if ".log." in name:
            rabbit.delete_queue(name)


AFTER_LOSS = "missed commands"
"""Deleted streams also lose the commands in them, which is another line."""


@pytest.mark.anyio
@pytest.mark.parametrize("end", [PrivateRabbit.close_connections, _restart, _delete_streams])
async def test_lost_connection_is_one_line_in_the_log(
    rabbit: PrivateRabbit, end: Callable[[PrivateRabbit], object], caplog: pytest.LogCaptureFixture
) -> None:
    manager = WebSocketManager("quiet", broker_url=rabbit.url + "?probe_s=200ms&dead_s=5s")
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(4 * HANG_S), manager:
        caplog.clear()
        with heard("broker is live") as live:
            await asyncio.to_thread(end, rabbit)
            await live.wait()
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    lines = [
        line
        for record in found
        if not (line := record.getMessage()).startswith(AFTER_LOSS) and "lost its position" not in line
    ]
    assert [line[:18] for line in lines] == ["broker is degraded"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.anyio
async def test_alarm_is_one_line_in_the_log(rabbit: PrivateRabbit, caplog: pytest.LogCaptureFixture) -> None:
    manager = WebSocketManager("quiet", broker_url=rabbit.url + "?probe_s=200ms&dead_s=5s")
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(4 * HANG_S), manager:
        caplog.clear()
        with heard("broker is blocked") as blocked, heard("broker is live") as live:
            await asyncio.to_thread(rabbit.raise_alarm, "memory")
            try:
                await blocked.wait()
            finally:
                await asyncio.to_thread(rabbit.clear_alarm, "memory")
            await live.wait()
    found = [record.getMessage()[:17] for record in caplog.records if record.levelno >= logging.WARNING]
    assert found == ["broker is blocked"]


@pytest.mark.anyio
async def test_connection_of_the_application_is_still_logged(
    rabbit: PrivateRabbit, caplog: pytest.LogCaptureFixture
) -> None:
    manager = WebSocketManager("quiet", broker_url=rabbit.url)
    async with asyncio.timeout(4 * HANG_S), manager:
        connection = await aiormq.connect(rabbit.url)
        ended = connection.closing
        await asyncio.to_thread(rabbit.close_connections)
        await asyncio.wait([ended])
    assert caplog.text.count("Unexpected connection close from remote") == 1
    assert caplog.text.count("Cancelling cause reader exited abnormally") == 1
