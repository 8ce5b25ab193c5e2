"""Broker reads for recovering connections, joined by partition, one at a time for each partition.

While the broker is unreachable, the reads of all connections wait. They are attempted again together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from dws_core._log.contract import LogBroker
from dws_core._log.joint_read import JointRead
from dws_core._log.records import Head, ReadResult, ReadSpan
from dws_core._node.pacing import Pacer
from dws_core._node.recovery.attempts import Attempts
from dws_core._tasks import Tasks


class SharedReads:
    """Reads spans and heads from the broker. Requests that wait at the same time are joined into one.

    Args:
        broker: Reads the logs.
        tasks: Runs the reads.
        pacer: Lets others continue between the answers of a joined read.
        attempts: Repeats reads that fail.
    """

    def __init__(self, broker: LogBroker, tasks: Tasks, pacer: Pacer, attempts: Attempts) -> None:
        self._broker = broker
        self._tasks = tasks
        self._pacer = pacer
        self._attempts = attempts
        self._joint: dict[int, JointRead] = {}
        self._running: set[int] = set()
        self._answers: dict[ReadSpan, asyncio.Future[ReadResult]] = {}
        self._asked: dict[asyncio.Future[Mapping[int, Head]], Collection[int]] = {}  # partitions, by request
        self._asking = False

    @property
    def recovers(self) -> bool:
        """Whether the broker can recover missed messages. This is certain only after its start."""
        return self._broker.capabilities.recovery

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read a span. While the broker cannot be reached, wait."""
        joint = self._joint.setdefault(span.partition, JointRead())
        joint.add(span)
        answer: asyncio.Future[ReadResult] = asyncio.get_running_loop().create_future()
        self._answers[span] = answer
        if span.partition not in self._running:
            self._running.add(span.partition)
            self._tasks.spawn(self._run(span.partition), name=f"recovery reads of partition {span.partition}")
        try:
            return await answer
        finally:
            del self._answers[span]
            joint.withdraw(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the ends of the logs, read after this call. While the broker cannot be reached, wait."""
        answer: asyncio.Future[Mapping[int, Head]] = asyncio.get_running_loop().create_future()
        self._asked[answer] = partitions
        if not self._asking:
            self._asking = True
            self._tasks.spawn(self._ask(), name="ends of the logs for recoveries")
        return await answer

    async def _run(self, partition: int) -> None:
        joint = self._joint[partition]
        try:
            while (span := joint.next_read()) is not None:
                result = await self._attempts.run(partial(self._broker.read, span), f"read partition {partition}")
                if result is None:
                    for failed in joint.failed():
                        if failed in self._answers:
                            joint.add(failed)
                    continue
                for answered, part in joint.answered(result):
                    self._settle(answered, part)
                    await self._pacer.wait_turn()
        finally:
            self._running.discard(partition)

    def _settle(self, span: ReadSpan, result: ReadResult) -> None:
        answer = self._answers.get(span)
        if answer is not None and not answer.done():
            answer.set_result(result)

    async def _ask(self) -> None:
        try:
            while waiting := {answer: wanted for answer, wanted in self._asked.items() if not answer.done()}:
                self._asked = {}
                needed = frozenset[int]().union(*waiting.values())
                heads = await self._attempts.run(partial(self._broker.heads, needed), "return the ends of its logs")
                if heads is None:
                    self._asked |= waiting
                    continue
                for answer in waiting:
                    if not answer.done():
                        answer.set_result(heads)
        finally:
            self._asking = False
