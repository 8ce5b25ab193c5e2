"""Publishes of a connection keep their order through failures, whenever they arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dws_core._errors import BrokerUnavailable, PayloadTooLarge, PublishOutcomeUnknown
from dws_core._node.requests.send_order import FENCE_S, Repeatable, SendOrder, is_temporary


async def failed(error: Exception | None = None) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error or BrokerUnavailable("away"))
    future.exception()
    return future


async def test_publishes_after_failure_are_refused() -> None:
    order, future = SendOrder(), await failed()
    order.sent(3, future)
    order.done(3, Repeatable(key="a"), future)
    now = asyncio.get_running_loop().time()
    assert 0 < (order.refusal_s([3], Repeatable(key="b"), now) or 0) <= FENCE_S
    assert order.refusal_s([1, 3], Repeatable(), now) is not None
    assert order.refusal_s([1], Repeatable(key="b"), now) is None, "another partition"


async def test_failure_counts_before_its_callback() -> None:
    order, future = SendOrder(), await failed()
    order.sent(3, future)
    assert order.refusal_s([3], Repeatable(key="b"), 0.0) == FENCE_S


@pytest.mark.parametrize("repeat", [Repeatable(key="a", id=7), Repeatable(key="b", id=1)], ids=["key", "id"])
async def test_repeat_of_first_failure_is_sent(repeat: Repeatable) -> None:
    order = SendOrder()
    for number, key in enumerate("ab", 1):
        future = await failed()
        order.sent(0, future)
        order.done(0, Repeatable(key=key, id=number), future)
    assert order.refusal_s([0], Repeatable(key="b", id=2), 0.0) is not None
    assert order.refusal_s([0], repeat, 0.0) is None
    assert order.refusal_s([0], Repeatable(key="c"), 0.0) is None


async def test_refusals_end_if_nothing_is_repeated() -> None:
    order, future = SendOrder(), await failed()
    order.sent(0, future)
    order.done(0, Repeatable(), future)
    now = asyncio.get_running_loop().time()
    assert order.refusal_s([0], Repeatable(), now) is not None
    assert order.refusal_s([0], Repeatable(), now + FENCE_S) is None


async def test_final_failure_refuses_nothing() -> None:
    order, future = SendOrder(), await failed(PayloadTooLarge(2, 1))
    order.sent(0, future)
    assert order.refusal_s([0], Repeatable(), 0.0) is None
    order.done(0, Repeatable(), future)
    assert order.refusal_s([0], Repeatable(), 0.0) is None


async def test_only_failures_that_may_be_repeated_are_temporary() -> None:
    loop = asyncio.get_running_loop()
    pending, stored, cancelled = loop.create_future(), loop.create_future(), loop.create_future()
    stored.set_result(None)
    cancelled.cancel()
    assert not any(map(is_temporary, (pending, stored, cancelled)))
    assert is_temporary(await failed(PublishOutcomeUnknown("t")))
