"""The order of a connection's publishes through failures.

A client may send further messages before it receives the error for an earlier one. If they were stored, the repeat of
the earlier message would follow them. They are therefore refused until the client repeats the message that failed first,
or for a short time, because a client may also give up.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from dws_core._wire.client_errors import describe

FENCE_S: Final = 2.0
"""How long further publishes are refused if the first one that failed is not repeated, in seconds.

Longer than an error and the messages sent before it need to cross each other.
"""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """How a repeat of a publish is recognised.

    Attributes:
        key: Its idempotency key, or None.
        id: The `id` of its request, or None.
    """

    key: str | None = None
    id: str | int | None = None

    def is_repeated_by(self, other: Repeatable) -> bool:
        """Return whether another publish has the same key or the same id."""
        same_key = self.key is not None and self.key == other.key
        return same_key or (self.id is not None and self.id == other.id)


@dataclass(slots=True)
class _Fence:
    failed: Repeatable
    until: float


def is_temporary(future: Future[Any]) -> bool:
    """Return whether a publish has failed in such a way that the client may repeat it."""
    if not future.done() or future.cancelled() or (error := future.exception()) is None:
        return False
    described = describe(error)
    return described is not None and described.temporary


@dataclass(slots=True)
class SendOrder:
    """The publishes of one connection, by partition. The clock is that of the event loop."""

    _latest: dict[int, Future[Any]] = field(default_factory=dict)
    _fences: dict[int, _Fence] = field(default_factory=dict)

    def refusal_s(self, partitions: Collection[int], request: Repeatable, now: float) -> float | None:
        """Return for how long a publish must be refused, in seconds, or None if it may be sent."""
        for partition in partitions:
            fence = self._fences.get(partition)
            if fence is not None and (now >= fence.until or fence.failed.is_repeated_by(request)):
                del self._fences[partition]
            elif fence is not None:
                return fence.until - now
            elif (latest := self._latest.get(partition)) is not None and is_temporary(latest):
                return FENCE_S  # the fence is about to be set
        return None

    def sent(self, partition: int, future: Future[Any]) -> None:
        """Note a publish that was passed to the broker."""
        self._latest[partition] = future

    def done(self, partition: int, request: Repeatable, future: Future[Any]) -> None:
        """Note that a publish has succeeded or failed. Called in the order of the publishes."""
        if self._latest.get(partition) is future:
            del self._latest[partition]
        if is_temporary(future):
            fence, now = self._fences.get(partition), future.get_loop().time()
            if fence is None or now >= fence.until:
                self._fences[partition] = _Fence(request, now + FENCE_S)
