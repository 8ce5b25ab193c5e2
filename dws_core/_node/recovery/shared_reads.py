"""Broker reads for recovering connections, joined by partition, one at a time for each partition."""

from __future__ import annotations

import asyncio
import logging

from dws_core._errors import BrokerError
from dws_core._log.contract import LogBroker
from dws_core._log.joint_read import JointRead
from dws_core._log.records import GapReason, ReadResult, ReadSpan
from dws_core._node.pacing import Pacer
from dws_core._tasks import Tasks

logger = logging.getLogger("dws")


class SharedReads:
    """Reads spans from the broker. Reads that wait at the same time are joined into one.

    Args:
        broker: Reads the logs.
        tasks: Runs the reads.
        pacer: Lets others continue between the answers of a joined read.
    """

    def __init__(self, broker: LogBroker, tasks: Tasks, pacer: Pacer) -> None:
        self._broker = broker
        self._tasks = tasks
        self._pacer = pacer
        self._joint: dict[int, JointRead] = {}
        self._running: set[int] = set()
        self._answers: dict[ReadSpan, asyncio.Future[ReadResult]] = {}

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read a span. If the broker cannot be reached, the result is the gap `unavailable`."""
        self._joint.setdefault(span.partition, JointRead()).add(span)
        answer: asyncio.Future[ReadResult] = asyncio.get_running_loop().create_future()
        self._answers[span] = answer
        if span.partition not in self._running:
            self._running.add(span.partition)
            self._tasks.spawn(self._run(span.partition), name=f"recovery reads of partition {span.partition}")
        try:
            return await answer
        finally:
            del self._answers[span]

    async def _run(self, partition: int) -> None:
        joint = self._joint[partition]
        try:
            while (span := joint.next_read()) is not None:
                try:
                    result = await self._broker.read(span)
                except Exception as error:
                    if not isinstance(error, BrokerError):
                        logger.exception("the broker failed to read partition %d", partition)
                    for failed in joint.failed():
                        self._settle(failed, ReadResult(gap=GapReason.UNAVAILABLE))
                else:
                    for answered, part in joint.answered(result):
                        self._settle(answered, part)
                        await self._pacer.wait_turn()
        finally:
            self._running.discard(partition)

    def _settle(self, span: ReadSpan, result: ReadResult) -> None:
        answer = self._answers.get(span)
        if answer is not None and not answer.done():
            answer.set_result(result)
