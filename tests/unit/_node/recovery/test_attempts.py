"""Calls of the broker that are repeated when its state changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.timeouts import HANG_S

from dws_core._errors import BrokerUnavailable
from dws_core._node.recovery.attempts import Attempts


class Calls:
    """A call that fails a number of times."""

    def __init__(self, failures: Iterator[Exception]) -> None:
        self.count = 0
        self._failures = failures

    async def __call__(self) -> str:
        self.count += 1
        await asyncio.sleep(0)
        for failure in self._failures:
            raise failure
        return "done"


def failing(*failures: Exception) -> Calls:
    return Calls(iter(failures))


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_call_that_succeeds_returns_at_once() -> None:
    assert await Attempts().run(failing(), "read") == "done"


async def test_failed_call_waits_for_next_state() -> None:
    attempts = Attempts(retry_s=HANG_S)
    running = asyncio.get_running_loop().create_task(attempts.run(failing(BrokerUnavailable("away")), "read"))
    await _settle()
    assert not running.done()
    attempts.on_state()
    async with asyncio.timeout(HANG_S / 2):
        assert await running is None


async def test_state_during_call_ends_wait() -> None:
    """The broker may be back before the call has failed."""
    attempts = Attempts(retry_s=HANG_S)

    async def fail_late() -> None:
        attempts.on_state()
        raise BrokerUnavailable("away")

    async with asyncio.timeout(HANG_S / 2):
        assert await attempts.run(fail_late, "read") is None


async def test_failure_without_state_change_is_repeated() -> None:
    assert await Attempts(retry_s=0.001).run(failing(BrokerUnavailable("away")), "read") is None


async def test_unexpected_failure_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    assert await Attempts(retry_s=0.001).run(failing(ValueError("a mistake")), "read partition 3") is None
    assert "the broker failed to read partition 3" in caplog.text
