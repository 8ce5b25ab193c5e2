"""Memory brokers with one flaw each in their reads or in their handling of keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from dws_memory import MemoryBroker
from factory import BrokerSuite, found_by

from dws_core.plugin import GapReason, History, PublishOutcomeUnknown, ReadResult, ReadSpan


def flawed_broker(test: str, text: str = "") -> Callable[[type[Any]], type[Any]]:
    return found_by(test, BrokerSuite, text)


class Answering(MemoryBroker):
    """A memory broker whose answers to reads are changed."""

    async def read(self, span: ReadSpan) -> ReadResult:
        return self.change(await super().read(span), span)

    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        raise NotImplementedError


class SilentAbout(Answering):
    gap: GapReason

    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        return ReadResult() if result.gap is self.gap else result


# -- reading


@flawed_broker("test_read_returns_all_records_after_any_offset")
class ReadsFromOneLater(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        return await super().read(replace(span, since=span.since + 1))


@flawed_broker("test_history_size_bounds_complete_reads", "must be the gap 'trimmed'")
class AnswersAGapByNothing(SilentAbout):
    gap = GapReason.TRIMMED


@flawed_broker("test_history_size_bounds_complete_reads")
class KeepsOneLess(MemoryBroker):
    def publish(self, *args: Any, history: History, **options: Any) -> Any:
        return super().publish(*args, history=replace(history, size=max(1, history.size - 1)), **options)


@flawed_broker("test_expired_record_is_gap_only_if_missed", "`per_topic_retention=False`")
class IgnoresTheTTL(MemoryBroker):
    def publish(self, *args: Any, history: History, **options: Any) -> Any:
        return super().publish(*args, history=replace(history, ttl_s=600.0), **options)


@flawed_broker("test_offset_of_other_epoch_is_gap", "must be the gap 'epoch'")
class TakesAnyEpoch(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        head = (await self.heads([span.partition]))[span.partition]
        return await super().read(replace(span, epoch=head.epoch))


@flawed_broker("test_offset_beyond_head_is_gap")
class WaitsForWhatIsAhead(SilentAbout):
    gap = GapReason.AHEAD


@flawed_broker("test_quiet_topic_is_complete_in_busy_partition", "or set `exact_gap=False` in the capabilities")
class KeepsSoManyOfAllTopics(Answering):
    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        return ReadResult(gap=GapReason.TRIMMED) if span.until - span.since > 5000 else result


@flawed_broker("test_read_from_watermark_returns_nothing")
class DoesNotBelieveInQuietTopics(Answering):
    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        return ReadResult(gap=GapReason.TRIMMED) if span.since > 500 else result


@flawed_broker("test_wildcard_read_finds_new_topics")
class KnowsOnlyOldTopics(Answering):
    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        return replace(result, records=tuple(record for record in result.records if record.prev))


@flawed_broker("test_read_over_limit_is_gap_without_records", "must be the gap 'too-many'")
class AnswersTooManyByAPart(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        result = await super().read(replace(span, limit=10**6))
        return replace(result, records=result.records[: span.limit])


@flawed_broker("test_read_over_limit_is_gap_without_records")
class CountsNoBytes(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        return await super().read(replace(span, max_bytes=10**9))


@flawed_broker("test_empty_topic_has_position_to_resume_from")
class KnowsNoNewTopics(Answering):
    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        return ReadResult(gap=GapReason.TRIMMED) if not callable(span.topics) and "new" in span.topics else result


@flawed_broker("test_read_during_publishes_is_complete")
class ReadsAPartOfMany(Answering):
    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        return replace(result, records=result.records[:20])


# -- clients that change nodes


@flawed_broker("test_clients_changing_nodes_receive_each_record_once")
class ServesWhoComesFromOneLater(ReadsFromOneLater): ...


@flawed_broker("test_roaming_clients_receive_every_record_or_gap")
class ServesWhoRoamsFromOneLater(ReadsFromOneLater): ...


@flawed_broker("test_roaming_clients_receive_every_record_or_gap")
class TellsWhoRoamsNoGap(AnswersAGapByNothing): ...


@flawed_broker("test_clients_changing_nodes_receive_each_record_once")
class LosesOneReadInAThousand(Answering):
    read_so_far = 0

    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        kept = []
        for record in result.records:
            LosesOneReadInAThousand.read_so_far += 1
            if LosesOneReadInAThousand.read_so_far % 1000:
                kept.append(record)
        return replace(result, records=tuple(kept))


@flawed_broker("test_roaming_clients_receive_every_record_or_gap")
class ReadsTwoInTheWrongOrder(Answering):
    def change(self, result: ReadResult, span: ReadSpan) -> ReadResult:
        *before, last = result.records or [None]
        return result if not before else replace(result, records=(*before[:-1], last, before[-1]))


# -- changes of the interest in partitions


@flawed_broker("test_last_set_interest_wins")
class LetsTheShortestChoiceWin(MemoryBroker):
    async def set_interest(self, partitions: frozenset[int]) -> Any:
        heads = await super().set_interest(partitions)
        await asyncio.sleep(0)
        await super().set_interest(partitions)
        if not partitions:
            await asyncio.sleep(0)
            await super().set_interest(partitions)
        return heads


@flawed_broker("test_ranges_are_contiguous_while_interest_changes")
class ForgetsToTailAgain(MemoryBroker):
    async def set_interest(self, partitions: frozenset[int]) -> Any:
        known = self.known = getattr(self, "known", frozenset()) | partitions
        heads = await super().set_interest(partitions)
        if len(known) == 3 and 2 in partitions:
            self._node._drop(2)  # type: ignore[union-attr]
        return heads


@flawed_broker("test_message_without_history_keeps_its_order")
class DelaysWhatHasNoHistory(MemoryBroker):
    def publish(self, *args: Any, history: History, **options: Any) -> Any:
        if history.size:
            return super().publish(*args, history=history, **options)
        future = asyncio.get_running_loop().create_future()

        def later() -> None:
            receipt = super(DelaysWhatHasNoHistory, self).publish(*args, history=history, **options)
            receipt.add_done_callback(lambda done: future.set_result(done.result()))

        asyncio.get_running_loop().call_soon(later)
        return future


# -- keys


@flawed_broker("test_repeat_after_unknown_outcome_is_stored_once")
class ForgetsTheKeyOfWhatWasNotAnswered(MemoryBroker):
    def publish(self, *args: Any, deadline_s: float = 10.0, key: str | None = None, **options: Any) -> Any:
        if deadline_s:
            return super().publish(*args, key=key, **options)
        super().publish(*args, **options)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(PublishOutcomeUnknown("t"))
        return future


@flawed_broker("test_key_outlives_its_record")
class ForgetsAKeyWithItsMessage(MemoryBroker):
    def publish(self, *args: Any, key: str | None = None, **options: Any) -> Any:
        if key is None and self._log is not None:
            for partition in self._log.partitions:
                partition._receipts.clear()
        return super().publish(*args, key=key, **options)


@flawed_broker("test_key_applies_without_history")
class KnowsKeysOfWhatItKeepsOnly(MemoryBroker):
    def publish(self, *args: Any, history: History, key: str | None = None, **options: Any) -> Any:
        return super().publish(*args, history=history, key=key if history.size else None, **options)


# -- start and stop


@flawed_broker("test_stop_completes_every_read")
class LeavesReadsUnanswered(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        await asyncio.Event().wait()
        raise AssertionError


@flawed_broker("test_cancelled_start_leaks_nothing")
class LeavesHalfAStartBehind(MemoryBroker):
    task: Any = None

    async def start(self, **arguments: Any) -> None:
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await super().start(**arguments)

    async def stop(self, **arguments: Any) -> None:
        if self._node is not None:
            self.task.cancel()
        await super().stop(**arguments)


class CountingSuite(BrokerSuite):
    @pytest.fixture
    def count_operations(self) -> Any:
        async def count() -> int:
            return Restless.operations

        return count


@found_by("test_idle_node_stays_within_promised_rate", CountingSuite)
class Restless(MemoryBroker):
    operations = 0

    async def start(self, **arguments: Any) -> None:
        await super().start(**arguments)
        self.timer = asyncio.get_running_loop().call_later(0.01, self.ask)

    def ask(self) -> None:
        Restless.operations += 1
        if self._node is not None:
            self.timer = asyncio.get_running_loop().call_later(0.01, self.ask)
