"""Publishes: in order for each partition, one script call for those of a tick, sent again until they are answered.

A batch stays here until its answer comes. When the connection is lost, all unanswered batches are sent again over the next one,
in order and under the same numbers; the script knows those that it has carried out. So what was sent once is stored once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

import hiredis

from dws_core.plugin import (
    BrokerClosed,
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    Coalescer,
    History,
    PayloadTooLarge,
    PublishOutcomeUnknown,
    Receipt,
)
from dws_redis._connection import WRONG_SERVER, Commands, Lost
from dws_redis._format import Names, receipt_key, write_push
from dws_redis._scripts import PUBLISH
from dws_redis._settings import Settings

_RING: Final = 1024
"""Answers that Redis keeps for a node and partition: more than may be unanswered."""

_PASSED: Final = Receipt(epoch="", offset=None)
"""Of a message that is not kept: it has no place in a log."""

_TICK_S: Final = 0.05
"""How exactly deadlines are kept, in seconds."""


class _Item:
    """One publish on its way."""

    __slots__ = ("deadline", "future", "history", "key", "payload", "sent", "seq", "settled", "topic")

    def __init__(
        self, seq: int, topic: str, payload: bytes, history: History, key: str | None, deadline: float
    ) -> None:
        self.seq = seq
        self.topic = topic
        self.payload = payload
        self.history = history
        self.key = key
        self.deadline = deadline
        self.sent = False
        self.settled = False  # answered or failed; a cancelled future is neither: the message goes its way
        self.future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

    @property
    def repeatable(self) -> bool:
        """Whether the script recognises it when it is sent again."""
        return self.history.size > 0 or self.key is not None

    def answer(self, receipt: Receipt) -> None:
        self.settled = True
        if not self.future.done():
            self.future.set_result(receipt)

    def fail(self, error: BrokerError) -> None:
        self.settled = True
        if not self.future.done():
            self.future.set_exception(error)

    def give_up(self, why: str) -> None:
        """Fail: was it stored?"""
        self.fail(PublishOutcomeUnknown(self.topic) if self.sent else BrokerUnavailable(why))


class _Batch:
    """Publishes that travel together."""

    __slots__ = ("items", "partition")

    def __init__(self, partition: int, items: list[_Item]) -> None:
        self.partition = partition
        self.items = items


class Publisher:
    """The publishing half of a broker.

    Args:
        names: Keys and channels.
        node: Who publishes.
        settings: Bounds, and where Redis is.
        on_memory: Told when Redis is out of memory, and when it takes publishes again.
    """

    def __init__(self, names: Names, node: bytes, settings: Settings, on_memory: Callable[[bool], None]) -> None:
        self._names = names
        self._node = node.hex()
        self._options = settings.options
        self._where = settings.shown
        self._verb = settings.publish
        self._declares = settings.kind == "cluster"
        self._on_memory = on_memory
        self._full = False
        self._seqs: dict[int, int] = {}
        self._gates: dict[int, Commands] = {}  # of a partition; none: the gate is shut
        self._unanswered: dict[int, deque[_Batch]] = {}
        self._loop = asyncio.get_running_loop()
        self._queue: Coalescer[_Item] = Coalescer(self._take, call_soon=self._loop.call_soon)
        self._waiting: dict[_Item, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def publish(
        self, partition: int, topic: str, payload: bytes, history: History, key: str | None, deadline_s: float
    ) -> asyncio.Future[Receipt]:
        """Queue a publish, as `LogBroker.publish` says."""
        item = _Item(0, topic, payload, history, key, self._loop.time() + deadline_s)
        limit = self._options.max_payload_bytes
        if self._closed:
            item.fail(BrokerClosed("the Redis broker is stopped.", fix="publish before stop()"))
        elif len(payload) > limit:
            item.fail(PayloadTooLarge(len(payload), limit, where="Redis broker"))
        elif self._queue.waiting_bytes > self._options.max_queue_bytes:
            item.fail(
                BrokerOverloaded(f"{self._options.max_queue_bytes} bytes wait for {self._where}.", fix="slow down")
            )
        else:
            item.seq = self._seqs[partition] = self._seqs.get(partition, 0) + 1
            self._waiting[item] = None
            self._queue.add(partition, item, len(payload) + len(topic) + 64)
            if self._timer is None:
                self._timer = self._loop.call_later(_TICK_S, self._look_at_deadlines)
        return item.future

    def open(self, commands: Commands, partitions: Collection[int]) -> None:
        """Send those of these partitions from now on over this connection, first again what was not answered."""
        self._gates.update(dict.fromkeys(partitions, commands))
        for batch in self._batches(partitions):
            self._send(batch)

    def shut(self, partitions: Collection[int]) -> None:
        """Send nothing to these: the connection is lost. What cannot be repeated safely has failed."""
        for number in partitions:
            self._gates.pop(number, None)
        for batch in self._batches(partitions):
            for item in batch.items:
                if item.sent and not item.repeatable:
                    item.give_up("")
            self._tidy(batch)

    async def close(self, drain_s: float) -> None:
        """Let what waits go for a while; fail the rest."""
        self._closed = True
        futures = [item.future for item in self._waiting if not item.future.done()]
        if futures:
            await asyncio.wait(futures, timeout=drain_s)
        self._gates.clear()
        for item in self._waiting:
            if item.sent:
                item.give_up("")
            else:
                item.fail(
                    BrokerClosed("the Redis broker was stopped before this was sent.", fix="wait longer: drain_s")
                )
        self._waiting.clear()
        self._queue.drain()
        if self._timer is not None:
            self._timer.cancel()

    # -- batches

    def _take(self, partition: int, items: list[_Item]) -> None:
        """Take what the queue lets go."""
        batch = _Batch(partition, items)
        self._unanswered.setdefault(partition, deque()).append(batch)
        self._send(batch)

    def _send(self, batch: _Batch) -> None:
        commands = self._gates.get(batch.partition)
        if commands is None:
            return
        batch.items = [item for item in batch.items if not item.settled]
        if not batch.items:
            self._loop.call_soon(self._tidy, batch)
            return
        for item in batch.items:
            item.sent = True
        sent = tuple(batch.items)
        command = self._store(batch) if any(item.repeatable for item in sent) else self._pass(batch)
        commands.send(command, lambda answer: self._answered(commands, batch, sent, answer))

    def _pass(self, batch: _Batch) -> tuple[bytes | str | int, ...]:
        """Nothing of it is kept: no script, and all of it is one message."""
        messages = ((item.seq, item.topic, item.payload) for item in batch.items)
        return (
            self._verb,
            self._names.pushes(batch.partition),
            write_push(self._node, time.time_ns() // 1_000_000, messages),
        )

    def _store(self, batch: _Batch) -> tuple[bytes | str | int, ...]:
        base = self._names.base(batch.partition)
        keys = [base + "m", base + "i", f"{base}r:{self._node}", *self._declared(base, batch)]
        command: list[bytes | str | int] = [
            "EVALSHA", PUBLISH.digest, len(keys), *keys, base, self._node, _RING, self._verb,
        ]  # fmt: skip
        key_ttl_ms = round(self._options.key_ttl_s * 1000)
        for item in batch.items:
            ttl_ms = max(1, round(item.history.ttl_s * 1000))
            command += (
                item.seq, item.topic, item.payload, item.history.size, ttl_ms, item.key or "", key_ttl_ms,
            )  # fmt: skip
        return tuple(command)

    def _declared(self, base: str, batch: _Batch) -> list[str]:
        """Name in a cluster all that is written: it refuses beforehand while some of it is moved, and not halfway."""
        if not self._declares:
            return []
        streams = {f"{base}h:{item.topic}" for item in batch.items if item.history.size > 0}
        receipts = {receipt_key(base, item.topic, item.key) for item in batch.items if item.key is not None}
        return [*streams, *receipts]

    def _answered(self, commands: Commands, batch: _Batch, sent: tuple[_Item, ...], answer: Any) -> None:
        if isinstance(answer, Lost) or commands is not self._gates.get(batch.partition):
            return  # it is sent again over the next connection
        if isinstance(answer, hiredis.ReplyError):
            self._refused(batch, str(answer))
            return
        if isinstance(answer, int):  # how many were listening
            for item in sent:
                item.answer(_PASSED)
        else:
            epoch = answer[0].decode()
            for item, found in zip(sent, answer[1:], strict=True):
                item.answer(_receipt(epoch, found.decode()))
            self._note_memory(full=False)
        self._tidy(batch)

    def _refused(self, batch: _Batch, why: str) -> None:
        if why.startswith(WRONG_SERVER):
            return  # the connection is cut; the next one is to a server that can
        if "OOM" in why:
            self._note_memory(full=True)
            error: BrokerError = BrokerOverloaded(f"{self._where} is out of memory.", fix="raise maxmemory")
        else:
            error = BrokerUnavailable(f"{self._where} refused to publish: {why}.")
        for item in batch.items:
            item.fail(error)
        self._tidy(batch)

    def _note_memory(self, *, full: bool) -> None:
        if full != self._full:
            self._full = full
            self._on_memory(full)

    def _tidy(self, batch: _Batch) -> None:
        """Forget what is done."""
        for item in batch.items:
            if item.settled:
                self._waiting.pop(item, None)
        batches = self._unanswered.get(batch.partition)
        if batches is None or batch not in batches or any(not item.settled for item in batch.items):
            return
        batches.remove(batch)
        self._queue.answered(batch.partition)

    def _batches(self, partitions: Collection[int]) -> list[_Batch]:
        return [batch for number in partitions for batch in self._unanswered.get(number, ())]

    # -- deadlines

    def _look_at_deadlines(self) -> None:
        self._timer = None
        now = self._loop.time()
        for item in [item for item in self._waiting if item.deadline <= now]:
            item.give_up(f"{self._where} did not take it in time.")
            if not item.sent:
                del self._waiting[item]
        for batch in self._batches(self._unanswered):
            self._tidy(batch)
        for item in [item for item in self._waiting if item.settled]:
            del self._waiting[item]
        if self._waiting:
            self._timer = self._loop.call_later(_TICK_S, self._look_at_deadlines)


def _receipt(epoch: str, answer: str) -> Receipt:
    """Read the script's answer: `n<offset>` stored now or before by us, `k<epoch> <offset>` stored before under the key."""
    if answer.startswith("k"):
        first, _, offset = answer[1:].partition(" ")
        return Receipt(epoch=first, offset=None if offset == "-" else int(offset), duplicate=True)
    offset = answer[1:]
    return Receipt(epoch=epoch, offset=None if offset == "-" else int(offset))
