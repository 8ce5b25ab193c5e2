"""The reads of connections that come back: joined by partition, one at a time for each."""

from __future__ import annotations

import asyncio
import logging

from dws_core._errors import BrokerError
from dws_core._log.contract import LogBroker
from dws_core._log.joint_read import JointRead
from dws_core._log.records import GapReason, ReadResult, ReadSpan
from dws_core._tasks import Tasks

logger = logging.getLogger("dws")


class SharedReads:
    """Reads spans from the broker.

    Args:
        broker: Where the logs are.
        tasks: Where the reads run.
    """

    def __init__(self, broker: LogBroker, tasks: Tasks) -> None:
        self._broker = broker
        self._tasks = tasks
        self._plans: dict[int, JointRead] = {}
        self._running: set[int] = set()
        self._answers: dict[ReadSpan, asyncio.Future[ReadResult]] = {}

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read; a broker that cannot be reached is the gap `unavailable`."""
        self._plans.setdefault(span.partition, JointRead()).add(span)
        answer: asyncio.Future[ReadResult] = asyncio.get_running_loop().create_future()
        self._answers[span] = answer
        if span.partition not in self._running:
            self._running.add(span.partition)
            self._tasks.spawn(self._run(span.partition), name=f"backfill of partition {span.partition}")
        try:
            return await answer
        finally:
            del self._answers[span]

    async def _run(self, partition: int) -> None:
        plan = self._plans[partition]
        try:
            while (wanted := plan.next_read()) is not None:
                try:
                    result = await self._broker.read(wanted)
                except Exception as error:
                    if not isinstance(error, BrokerError):
                        logger.exception("the broker failed to read partition %d", partition)
                    for span in plan.failed():
                        self._settle(span, ReadResult(gap=GapReason.UNAVAILABLE))
                else:
                    for span, part in plan.answered(result):
                        self._settle(span, part)
        finally:
            self._running.discard(partition)

    def _settle(self, span: ReadSpan, result: ReadResult) -> None:
        answer = self._answers.get(span)
        if answer is not None and not answer.done():
            answer.set_result(result)
