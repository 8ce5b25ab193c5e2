"""Calls of the application's `authorize`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dws_core import ConfigurationError, Permissions
from dws_core._node.requests.permission import Permission
from dws_core._topics.trie import MqttMatcher
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
    await Permission(authorize, MqttMatcher()).check(None, "subscribe", subjects)
    assert (authorize.subjects, authorize.most) == (subjects, 16)


@pytest.mark.parametrize("forbidden", ["0", "19"])
async def test_one_forbidden_subject_refuses_request(forbidden: str) -> None:
    permission = Permission(SlowAuthorize(forbidden=forbidden), MqttMatcher())
    with pytest.raises(Refused, match="subscribe is not allowed") as refused:
        await permission.check(None, "subscribe", [str(n) for n in range(20)])
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
        await Permission(authorize, MqttMatcher()).check(None, "history", ["broken", "a", "b"])
    assert ended == ["a", "b"]


async def test_sync_authorize_and_none_are_supported() -> None:
    await Permission(None, MqttMatcher()).check(None, "send", ["t"])
    permission = Permission(lambda principal, action, subject: subject == "t", MqttMatcher())
    await permission.check(None, "send", ["t"])
    with pytest.raises(Refused):
        await permission.check(None, "send", ["t", "u"])


@pytest.mark.parametrize("kind", ["async", "sync", "mixed"])
async def test_forbidden_subjects_are_found_in_order(kind: str) -> None:
    async def slow(subject: str) -> bool:
        await asyncio.sleep(0)
        return int(subject) % 7 > 0

    def authorize(principal: object, action: str, subject: str) -> Any:
        is_slow = kind == "async" or (kind == "mixed" and int(subject) % 2)
        return slow(subject) if is_slow else int(subject) % 7 > 0

    permission = Permission(authorize, MqttMatcher())
    found = await permission.forbidden(None, "subscribe", [str(n) for n in range(30)])
    assert found == ["0", "7", "14", "21", "28"]
    assert await Permission(None, MqttMatcher()).forbidden(None, "subscribe", ["a"]) == []


async def test_rules_decide_about_each_filter() -> None:
    permission = Permission(Permissions({"chat/+": {"subscribe"}}), MqttMatcher())
    await permission.check(None, "subscribe", ["chat/1", "chat/+"])
    with pytest.raises(Refused, match="subscribe is not allowed"):
        await permission.check(None, "subscribe", ["chat/1", "#"])


def test_rules_are_refused_for_other_topic_language() -> None:
    """A wildcard of that language would be a plain name for the rules."""

    class Glob:
        pass

    with pytest.raises(ConfigurationError, match=r"topic language mqtt, but the manager uses .*Glob"):
        Permission(Permissions({"chat/+": {"subscribe"}}), Glob())  # type: ignore[arg-type]
