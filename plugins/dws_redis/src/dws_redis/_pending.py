"""Publishes that have no result yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from dws_core.plugin import BrokerError, BrokerUnavailable, History, PublishOutcomeUnknown, Receipt


class PendingPublish:
    """One publish that has no result yet.

    Attributes:
        sent: Whether it was sent over any connection.
        resent: Whether it was sent before the current attempt.
        follower: The next publish of the same order, which fails if this one fails.
        settled: Whether it is resolved or failed. A cancelled future is neither, because the message is still published.
        future: The outcome, for the caller.
    """

    __slots__ = (
        "__weakref__",
        "deadline",
        "follower",
        "future",
        "history",
        "key",
        "payload",
        "resent",
        "sent",
        "seq",
        "settled",
        "timeout_s",
        "topic",
    )  # fmt: skip

    def __init__(self, topic: str, payload: bytes, history: History, key: str | None, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.seq = 0
        self.topic = topic
        self.payload = payload
        self.history = history
        self.key = key
        self.timeout_s = timeout_s
        self.deadline = loop.time() + timeout_s
        self.sent = False
        self.resent = False
        self.follower: PendingPublish | None = None
        self.settled = False
        self.future: asyncio.Future[Receipt] = loop.create_future()

    @property
    def repeatable(self) -> bool:
        """Whether the script recognises the message when it is sent again."""
        return self.history.size > 0 or self.key is not None

    def resolve(self, receipt: Receipt) -> None:
        self.settled = True
        if not self.future.done():
            self.future.set_result(receipt)

    def fail(self, error: BrokerError) -> None:
        self.settled = True
        if not self.future.done():
            self.future.set_exception(error)

    def fail_as_unanswered(self, why: str) -> None:
        """Fail without a reply: the outcome of a sent message is unknown, an unsent one is certainly not stored."""
        self.fail(PublishOutcomeUnknown(self.topic) if self.sent else BrokerUnavailable(why))

    def take_followers(self) -> Iterator[PendingPublish]:
        """Return and forget the publishes that must not be stored if this one is not."""
        item = self
        while (follower := item.follower) is not None:
            item.follower = None
            yield follower
            item = follower


class Batch:
    """Publishes of one partition that are sent together."""

    __slots__ = ("items", "partition")

    def __init__(self, partition: int, items: list[PendingPublish]) -> None:
        self.partition = partition
        self.items = items
