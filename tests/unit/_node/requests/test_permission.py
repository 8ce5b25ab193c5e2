"""Calls of the application's `authorize`."""

from __future__ import annotations

import asyncio

import pytest

from dws_core._node.requests.permission import Permission
from dws_core._wire.client_errors import Refused


class SlowAuthorize:
    """An async `authorize` whose calls wait for each other: it counts how many run at the same time."""

    def __init__(self, *, forbidden: str = "") -> None:
        self.subjects: list[str] = []
        self.most = 0
        self._running = 0
        self._forbidden = forbidden

    async def __call__(self, principal: object, action: str, subject: str) -> bool:
        self.subjects.append(subject)
        self._running += 1
        self.most = max(self.most, self._running)
        for _ in range(3):
            await asyncio.sleep(0)
        self._running -= 1
        return subject != self._forbidden


async def test_many_subjects_are_checked_concurrently() -> None:
    authorize = SlowAuthorize()
    subjects = [str(number) for number in range(100)]
    await Permission(authorize).check(None, "subscribe", subjects)
    assert (authorize.subjects, authorize.most) == (subjects, 16)


@pytest.mark.parametrize("forbidden", ["0", "19"])
async def test_one_forbidden_subject_refuses_request(forbidden: str) -> None:
    with pytest.raises(Refused, match="subscribe is not allowed") as refused:
        await Permission(SlowAuthorize(forbidden=forbidden)).check(None, "subscribe", [str(n) for n in range(20)])
    assert refused.value.code == "forbidden"


async def test_exception_is_raised_after_other_calls_ended() -> None:
    ended: list[str] = []

    async def authorize(principal: object, action: str, subject: str) -> bool:
        if subject == "broken":
            raise RuntimeError("the database is down")
        await asyncio.sleep(0)
        ended.append(subject)
        return True

    with pytest.raises(RuntimeError, match="the database is down"):
        await Permission(authorize).check(None, "history", ["broken", "a", "b"])
    assert ended == ["a", "b"]


async def test_sync_authorize_and_none_are_supported() -> None:
    await Permission(None).check(None, "send", ["t"])
    await Permission(lambda principal, action, subject: subject == "t").check(None, "send", ["t"])
    with pytest.raises(Refused):
        await Permission(lambda principal, action, subject: subject == "t").check(None, "send", ["t", "u"])
