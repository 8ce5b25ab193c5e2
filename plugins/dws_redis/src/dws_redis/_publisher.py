"""Publishes: in order for each partition, one script call per tick, sent again until there is a reply.

A batch stays here until its reply arrives. The next batch of the partition waits for that, so that no publish overtakes
one that is refused temporarily. When the connection is lost, the batch is sent again over the next connection with the
same sequence numbers. The script recognises the numbers that it has already executed. Therefore a message is stored
once, even if it is sent several times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any, Final
from weakref import WeakValueDictionary

import hiredis

from dws_core.plugin import (
    BrokerClosed,
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    Coalescer,
    PayloadTooLarge,
    Receipt,
)
from dws_redis._connection import WRONG_SERVER, Commands, Lost, has_error_code
from dws_redis._fence import LogPosition
from dws_redis._format import Names, receipt_key, write_push
from dws_redis._pending import Batch, PendingPublish
from dws_redis._scripts import PUBLISH
from dws_redis._settings import Settings

_RING_SIZE: Final = 1024
"""Number of results that Redis keeps for each node and partition. More than the publishes without a reply can need."""

_EPHEMERAL_RECEIPT: Final = Receipt(epoch="", offset=None)
"""The receipt of a message that is not kept and has no position in a log."""

_TICK_S: Final = 0.05
"""Interval between checks of the deadlines, in seconds."""

_MAX_EXPIRED_PER_STEP: Final = 1_000
"""Maximum number of publishes that expire at a time, before other callbacks of the event loop run."""

_REFUSED_BEFORE_WRITE: Final = ("OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOPERM")
"""Errors that Redis returns before it writes. It checks memory, disk and replicas at the first write of a script."""


class Publisher:
    """The publishing half of a broker.

    Args:
        names: Names of keys and channels.
        node: Id of the node.
        settings: Limits, and the commands that the kind of server needs.
        on_memory: Called with True when Redis is out of memory, and with False when it accepts publishes again.
    """

    def __init__(self, names: Names, node: bytes, settings: Settings, on_memory: Callable[[bool], None]) -> None:
        self._names = names
        self._node = node.hex()
        self._options = settings.options
        self._masked_url = settings.masked_url
        self._publish_command = settings.publish_command
        self._declares_keys = settings.kind == "cluster"
        self._on_memory = on_memory
        self._out_of_memory: set[int] = set()  # partitions whose server has no free memory
        self._seqs: dict[int, int] = {}
        self._connections: dict[int, Commands] = {}  # by partition, without suspended ones
        self._unanswered: dict[int, Batch] = {}
        self._last_stored: dict[int, LogPosition] = {}
        self._loop = asyncio.get_running_loop()
        self._queue: Coalescer[PendingPublish] = Coalescer(
            self._send_new_batch, call_soon=self._loop.call_soon, max_in_flight=1
        )
        self._ordered: WeakValueDictionary[tuple[int, Hashable], PendingPublish] = WeakValueDictionary()
        self._waiting: dict[float, dict[PendingPublish, None]] = {}  # by timeout, each in the order of the deadlines
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def publish(self, partition: int, item: PendingPublish, order: Hashable | None) -> asyncio.Future[Receipt]:
        """Queue a publish. See `LogBroker.publish`."""
        limit, size = self._options.max_payload_bytes, len(item.payload)
        if self._closed:
            item.fail(BrokerClosed("the Redis broker is stopped.", fix="publish before stop()"))
        elif size > limit:
            item.fail(PayloadTooLarge(size, limit, where="Redis broker"))
        elif self._queue.waiting_bytes > self._options.max_queue_bytes:
            item.fail(
                BrokerOverloaded(
                    f"{self._options.max_queue_bytes} bytes wait for {self._masked_url}.",
                    fix="publish less, or increase max_queue_bytes",
                )
            )
        else:
            if order is not None:
                self._follow(partition, item, order)
            self._waiting.setdefault(item.timeout_s, {})[item] = None
            self._queue.add(partition, item, size + len(item.topic) + 64)
            if self._timer is None:
                self._timer = self._loop.call_later(_TICK_S, self._check_deadlines)
        return item.future

    def _follow(self, partition: int, item: PendingPublish, order: Hashable) -> None:
        """Let a publish fail if an earlier one of the same order fails."""
        before = self._ordered.get((partition, order))
        if before is not None and not before.settled:
            before.follower = item
        self._ordered[partition, order] = item

    def last_stored(self, partition: int) -> LogPosition | None:
        """Return the position of the last record that this publisher stored."""
        return self._last_stored.get(partition)

    def resume(self, commands: Commands, partitions: Collection[int]) -> None:
        """Send the publishes of these partitions over this connection. Batches without a reply are sent again first."""
        self._connections.update(dict.fromkeys(partitions, commands))
        for batch in self._batches(partitions):
            self._send(batch)

    def suspend(self, partitions: Collection[int]) -> None:
        """Stop sending because the connection of these partitions is lost. Fail messages that cannot be sent again."""
        for number in partitions:
            self._connections.pop(number, None)
        for batch in self._batches(partitions):
            lost = [item for item in batch.items if item.sent and not item.repeatable]
            for item in lost:
                item.fail_as_unanswered("")
            self._fail_followers(lost)
            self._forget_settled(batch)

    def check_memory(self, commands: Commands, partitions: Collection[int]) -> None:
        """Check whether a server that was out of memory accepts writes again, even if this node publishes nothing."""
        for number in self._out_of_memory.intersection(partitions):

            def on_reply(reply: object, number: int = number) -> None:
                if not isinstance(reply, (Lost, hiredis.ReplyError)):
                    self._note_memory(number, full=False)

            commands.send(("SET", self._names.base(number) + "room", "", "PX", 1), on_reply)

    async def close(self, drain_s: float) -> None:
        """Wait up to `drain_s` seconds for queued publishes, then fail the rest."""
        self._closed = True
        try:
            if any(self._waiting.values()):
                self._idle.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(drain_s):
                        await self._idle.wait()
        finally:
            self._fail_all()

    def _fail_all(self) -> None:
        self._connections.clear()
        unsent = "the Redis broker was stopped before this was sent."
        for item in chain.from_iterable(self._waiting.values()):
            if item.sent:
                item.fail_as_unanswered("")
            else:
                item.fail(BrokerClosed(unsent, fix="increase `drain_s`"))
        self._waiting.clear()
        self._queue.drain()
        if self._timer is not None:
            self._timer.cancel()

    # -- batches

    def _send_new_batch(self, partition: int, items: list[PendingPublish]) -> None:
        """Number and send a batch of the queue."""
        for item in items:  # numbered here, so that the items of a batch are next to each other in the ring
            item.seq = self._seqs[partition] = self._seqs.get(partition, 0) + 1
        batch = self._unanswered[partition] = Batch(partition, items)
        try:
            self._send(batch)
        except BaseException:
            del self._unanswered[partition]  # the queue counts a batch as answered if this raises
            raise

    def _send(self, batch: Batch) -> None:
        commands = self._connections.get(batch.partition)
        if commands is None:
            return
        batch.items = [item for item in batch.items if not item.settled]
        if not batch.items:
            self._loop.call_soon(self._forget_settled, batch)
            return
        for item in batch.items:
            item.resent = item.sent
            item.sent = True
        sent = tuple(batch.items)
        command = (
            self._publish_with_history(batch)
            if any(item.repeatable for item in sent)
            else self._publish_without_history(batch)
        )
        commands.send(command, lambda reply: self._on_reply(commands, batch, sent, reply))

    def _publish_without_history(self, batch: Batch) -> tuple[bytes | str | int, ...]:
        """Return the command for a batch without history: one plain publish of all messages, without a script."""
        messages = ((item.seq, item.topic, item.payload) for item in batch.items)
        return (
            self._publish_command,
            self._names.push_channel(batch.partition),
            write_push(self._node, time.time_ns() // 1_000_000, messages),
        )

    def _publish_with_history(self, batch: Batch) -> tuple[bytes | str | int, ...]:
        base = self._names.base(batch.partition)
        keys = [base + "m", base + "i", f"{base}r:{self._node}", *self._written_keys(base, batch)]
        command: list[bytes | str | int] = [
            "EVALSHA", PUBLISH.digest, len(keys), *keys, base, self._node, _RING_SIZE, self._publish_command,
            *self._last_stored.get(batch.partition, ("", 0)),
        ]  # fmt: skip
        key_ttl_ms = round(self._options.key_ttl_s * 1000)
        for item in batch.items:
            ttl_ms = max(1, round(item.history.ttl_s * 1000))
            command += (
                item.seq, item.topic, item.payload, item.history.size, ttl_ms, item.key or "", key_ttl_ms,
            )  # fmt: skip
        return tuple(command)

    def _written_keys(self, base: str, batch: Batch) -> list[str]:
        """Return all further keys that the script writes, for a cluster.

        If some of these keys are being moved to another server, the cluster refuses the script before it starts.
        """
        if not self._declares_keys:
            return []
        streams = {f"{base}h:{item.topic}" for item in batch.items if item.history.size > 0}
        receipts = {receipt_key(base, item.topic, item.key) for item in batch.items if item.key is not None}
        return [*streams, *receipts]

    def _on_reply(self, commands: Commands, batch: Batch, sent: tuple[PendingPublish, ...], reply: Any) -> None:
        if isinstance(reply, Lost) or commands is not self._connections.get(batch.partition):
            return  # the batch is sent again over the next connection
        if isinstance(reply, hiredis.ReplyError):
            self._on_refusal(batch, sent, str(reply))
            return
        if isinstance(reply, int):  # the number of receivers, returned by a plain publish
            for item in sent:
                item.resolve(_EPHEMERAL_RECEIPT)
        else:
            self._resolve_all(batch.partition, sent, reply[0].decode(), reply[1:])
            self._note_memory(batch.partition, full=False)
        self._forget_settled(batch)

    def _resolve_all(self, partition: int, sent: tuple[PendingPublish, ...], epoch: str, results: list[bytes]) -> None:
        for item, found in zip(sent, results, strict=True):
            receipt = _receipt(epoch, found.decode())
            if receipt.offset is not None and not receipt.duplicate:
                self._last_stored[partition] = (epoch, receipt.offset)
            item.resolve(receipt)

    def _on_refusal(self, batch: Batch, sent: tuple[PendingPublish, ...], why: str) -> None:
        if has_error_code(why, WRONG_SERVER):
            return  # the connection is cut, and the batch is sent again over the next one
        error: BrokerError
        if has_error_code(why, ("OOM",)):
            self._note_memory(batch.partition, full=True)
            error = BrokerOverloaded(f"{self._masked_url} is out of memory.", fix="increase maxmemory of Redis")
        else:
            error = BrokerUnavailable(f"{self._masked_url} refused to publish: {why}.")
        refused_before_write = has_error_code(why, _REFUSED_BEFORE_WRITE) and not (
            why.startswith("NOPERM") and "script" in why
        )
        for item in sent:
            if refused_before_write and not item.resent:
                item.fail(error)
            else:
                item.fail_as_unanswered("")
        self._fail_followers(sent)
        self._forget_settled(batch)

    def _fail_followers(self, failed: Iterable[PendingPublish]) -> None:
        """Fail the publishes that must not be stored because an earlier one of the same order has failed."""
        followers = [follower for item in failed for follower in item.take_followers() if not follower.settled]
        for item in followers:
            item.fail_as_unanswered("an earlier message of the same sender failed, and must be stored first.")
            self._waiting.get(item.timeout_s, {}).pop(item, None)
        if followers:
            self._queue.drop(lambda item: item.settled)

    def _note_memory(self, partition: int, *, full: bool) -> None:
        if full == (partition in self._out_of_memory):
            return
        before = bool(self._out_of_memory)
        (self._out_of_memory.add if full else self._out_of_memory.discard)(partition)
        if before != bool(self._out_of_memory):
            self._on_memory(bool(self._out_of_memory))

    def _forget_settled(self, batch: Batch) -> None:
        """Forget the settled publishes of a batch. If all are settled, release the next batch of the partition."""
        for item in batch.items:
            if item.settled:
                self._waiting.get(item.timeout_s, {}).pop(item, None)
        if self._unanswered.get(batch.partition) is batch and all(item.settled for item in batch.items):
            del self._unanswered[batch.partition]
            self._queue.answered(batch.partition)
        if not any(self._waiting.values()):
            self._idle.set()

    def _batches(self, partitions: Collection[int]) -> list[Batch]:
        return [self._unanswered[number] for number in partitions if number in self._unanswered]

    # -- deadlines

    def _check_deadlines(self) -> None:
        """Fail expired publishes, at most `_MAX_EXPIRED_PER_STEP` at a time."""
        now = self._loop.time()
        late = list(islice(self._overdue(now), _MAX_EXPIRED_PER_STEP))
        for item in late:
            item.fail_as_unanswered(f"{self._masked_url} did not accept the publish in time.")
            del self._waiting[item.timeout_s][item]
        self._fail_followers(late)
        more = next(self._overdue(now), None) is not None
        if late and not more:
            self._queue.drop(lambda item: item.settled)
            for batch in self._batches(list(self._unanswered)):
                self._forget_settled(batch)
        for timeout_s in [timeout_s for timeout_s, waiting in self._waiting.items() if not waiting]:
            del self._waiting[timeout_s]
        self._timer = self._loop.call_later(0 if more else _TICK_S, self._check_deadlines) if self._waiting else None

    def _overdue(self, now: float) -> Iterator[PendingPublish]:
        for waiting in self._waiting.values():
            for item in waiting:
                if item.deadline > now:
                    break
                yield item


def _receipt(epoch: str, result: str) -> Receipt:
    """Parse a result of the script.

    `n<offset>` means stored by this publisher, now or by an earlier attempt. `k<epoch> <offset>` means stored earlier
    under the same key.
    """
    if result.startswith("k"):
        first, _, offset = result[1:].partition(" ")
        return Receipt(epoch=first, offset=None if offset == "-" else int(offset), duplicate=True)
    offset = result[1:]
    return Receipt(epoch=epoch, offset=None if offset == "-" else int(offset))
