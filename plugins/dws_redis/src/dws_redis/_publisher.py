"""Publishes: in order for each partition, one script call for those of a tick, sent again until they are answered.

A batch stays here until its answer comes, and the next one of its partition waits for that: what is refused for the moment is not
overtaken. When the connection is lost, it is sent again over the next one, under the same numbers; the script knows those
that it has carried out. So what was sent once is stored once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
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
from dws_redis._connection import WRONG_SERVER, Commands, Lost, says
from dws_redis._fence import Place
from dws_redis._format import Names, receipt_key, write_push
from dws_redis._scripts import PUBLISH
from dws_redis._settings import Settings

_RING: Final = 1024
"""Answers that Redis keeps for a node and partition: more than may be unanswered."""

_PASSED: Final = Receipt(epoch="", offset=None)
"""Of a message that is not kept: it has no place in a log."""

_TICK_S: Final = 0.05
"""How exactly deadlines are kept, in seconds."""

_AT_ONCE: Final = 1_000
"""How many may miss their deadlines before others take their turn."""

_NOT_CARRIED_OUT: Final = ("OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOPERM")
"""Refusals that come before anything is written. Redis checks memory, disk and replicas at a script's first write."""


class _Item:
    """One publish on its way."""

    __slots__ = (
        "deadline", "future", "history", "key", "patience_s", "payload", "resent", "sent", "seq", "settled", "topic",
    )  # fmt: skip

    def __init__(
        self, topic: str, payload: bytes, history: History, key: str | None, patience_s: float, now: float
    ) -> None:
        self.seq = 0
        self.topic = topic
        self.payload = payload
        self.history = history
        self.key = key
        self.patience_s = patience_s
        self.deadline = now + patience_s
        self.sent = False
        self.resent = False
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
        self._full: set[int] = set()  # partitions whose server has no memory
        self._seqs: dict[int, int] = {}
        self._gates: dict[int, Commands] = {}  # of a partition; none: the gate is shut
        self._unanswered: dict[int, _Batch] = {}
        self._furthest: dict[int, Place] = {}
        self._loop = asyncio.get_running_loop()
        self._queue: Coalescer[_Item] = Coalescer(self._take, call_soon=self._loop.call_soon, max_in_flight=1)
        self._waiting: dict[float, dict[_Item, None]] = {}  # by patience: each in the order of its deadlines
        self._calm = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def publish(
        self, partition: int, topic: str, payload: bytes, history: History, key: str | None, deadline_s: float
    ) -> asyncio.Future[Receipt]:
        """Queue a publish, as `LogBroker.publish` says."""
        item = _Item(topic, payload, history, key, deadline_s, self._loop.time())
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
            self._waiting.setdefault(deadline_s, {})[item] = None
            self._queue.add(partition, item, len(payload) + len(topic) + 64)
            if self._timer is None:
                self._timer = self._loop.call_later(_TICK_S, self._look_at_deadlines)
        return item.future

    def furthest(self, partition: int) -> Place | None:
        """Return where the last record of this publisher is."""
        return self._furthest.get(partition)

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

    def ask_for_memory(self, commands: Commands, partitions: Collection[int]) -> None:
        """Find out whether a server that had no memory takes publishes again, though nobody publishes."""
        for number in self._full.intersection(partitions):

            def take(answer: object, number: int = number) -> None:
                if not isinstance(answer, (Lost, hiredis.ReplyError)):
                    self._note_memory(number, full=False)

            commands.send(("SET", self._names.base(number) + "room", "", "PX", 1), take)

    async def close(self, drain_s: float) -> None:
        """Let what waits go for a while; fail the rest."""
        self._closed = True
        try:
            if any(self._waiting.values()):
                self._calm.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(drain_s):
                        await self._calm.wait()
        finally:
            self._fail_all()

    def _fail_all(self) -> None:
        self._gates.clear()
        for waiting in self._waiting.values():
            for item in waiting:
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
        for item in items:  # numbered now, so that those of a batch are neighbours in the ring
            item.seq = self._seqs[partition] = self._seqs.get(partition, 0) + 1
        batch = self._unanswered[partition] = _Batch(partition, items)
        try:
            self._send(batch)
        except BaseException:
            del self._unanswered[partition]  # the queue takes it for answered
            raise

    def _send(self, batch: _Batch) -> None:
        commands = self._gates.get(batch.partition)
        if commands is None:
            return
        batch.items = [item for item in batch.items if not item.settled]
        if not batch.items:
            self._loop.call_soon(self._tidy, batch)
            return
        for item in batch.items:
            item.resent = item.sent
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
            *self._furthest.get(batch.partition, ("", 0)),
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
            self._refused(batch, sent, str(answer))
            return
        if isinstance(answer, int):  # how many were listening
            for item in sent:
                item.answer(_PASSED)
        else:
            self._stored(batch.partition, sent, answer[0].decode(), answer[1:])
            self._note_memory(batch.partition, full=False)
        self._tidy(batch)

    def _stored(self, partition: int, sent: tuple[_Item, ...], epoch: str, answers: list[bytes]) -> None:
        for item, found in zip(sent, answers, strict=True):
            receipt = _receipt(epoch, found.decode())
            if receipt.offset is not None and not receipt.duplicate:
                self._furthest[partition] = (epoch, receipt.offset)
            item.answer(receipt)

    def _refused(self, batch: _Batch, sent: tuple[_Item, ...], why: str) -> None:
        if says(why, WRONG_SERVER):
            return  # the connection is cut; the next one is to a server that can
        error: BrokerError
        if says(why, ("OOM",)):
            self._note_memory(batch.partition, full=True)
            error = BrokerOverloaded(f"{self._where} is out of memory.", fix="raise maxmemory")
        else:
            error = BrokerUnavailable(f"{self._where} refused to publish: {why}.")
        nothing_written = says(why, _NOT_CARRIED_OUT) and not (why.startswith("NOPERM") and "script" in why)
        for item in sent:
            if nothing_written and not item.resent:
                item.fail(error)
            else:
                item.give_up("")
        self._tidy(batch)

    def _note_memory(self, partition: int, *, full: bool) -> None:
        if full == (partition in self._full):
            return
        before = bool(self._full)
        (self._full.add if full else self._full.discard)(partition)
        if before != bool(self._full):
            self._on_memory(bool(self._full))

    def _tidy(self, batch: _Batch) -> None:
        """Forget what is done."""
        for item in batch.items:
            if item.settled:
                self._waiting.get(item.patience_s, {}).pop(item, None)
        if self._unanswered.get(batch.partition) is batch and all(item.settled for item in batch.items):
            del self._unanswered[batch.partition]
            self._queue.answered(batch.partition)
        if not any(self._waiting.values()):
            self._calm.set()

    def _batches(self, partitions: Collection[int]) -> list[_Batch]:
        return [self._unanswered[number] for number in partitions if number in self._unanswered]

    # -- deadlines

    def _look_at_deadlines(self) -> None:
        """Fail what has waited too long; of very many some at a time."""
        now = self._loop.time()
        late = list(islice(self._late(now), _AT_ONCE))
        for item in late:
            item.give_up(f"{self._where} did not take it in time.")
            del self._waiting[item.patience_s][item]
        more = next(self._late(now), None) is not None
        if late and not more:
            self._queue.drop(lambda item: item.settled)
            for batch in self._batches(list(self._unanswered)):
                self._tidy(batch)
        for patience_s in [patience_s for patience_s, waiting in self._waiting.items() if not waiting]:
            del self._waiting[patience_s]
        self._timer = self._loop.call_later(0 if more else _TICK_S, self._look_at_deadlines) if self._waiting else None

    def _late(self, now: float) -> Iterator[_Item]:
        for waiting in self._waiting.values():
            for item in waiting:
                if item.deadline > now:
                    break
                yield item


def _receipt(epoch: str, answer: str) -> Receipt:
    """Read the script's answer: `n<offset>` stored now or before by us, `k<epoch> <offset>` stored before under the key."""
    if answer.startswith("k"):
        first, _, offset = answer[1:].partition(" ")
        return Receipt(epoch=first, offset=None if offset == "-" else int(offset), duplicate=True)
    offset = answer[1:]
    return Receipt(epoch=epoch, offset=None if offset == "-" else int(offset))
