"""Topics that are opened with their past on changing nodes: each receives every message once and in order, or a gap.

The tests must also detect each rule that is broken on purpose. The model is in `replaying`, the oracle in
`model_world`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from unit._log.model_world import Case, search
from unit._log.replaying import CASES, play
from unit._log.replaying_session import Rules, Sending, Session, matches

from dws_core._log.records import Head, ReadResult, ReadSpan, Record
from dws_core._log.recovery import Answer, Due, Recovery
from dws_core._log.replay import Replay
from dws_core._wire.cursor import Position, merge
from dws_core.client._events import Event, Message
from dws_core.client._state import ClientState


@settings(max_examples=1_000, deadline=None)
@given(CASES)
def test_subscription_receives_each_record_once_or_gap(case: Case) -> None:
    """Replays of several filters overlap, and the connection is lost at any frame."""
    play(Rules(), case)


# -- rules of the node


class HearsNothingDuringReplay(Session):
    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        replays, self.replays = self.replays, {}
        super().on_record(partition, epoch, record)
        self.replays = replays


class LeavesOutOtherFilters(Session):
    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        if any(matches(filter_, record.topic) for filter_ in self.live):
            replays, self.replays = self.replays, {}
            super().on_record(partition, epoch, record)
            self.replays = replays
        else:
            super().on_record(partition, epoch, record)


class OthersWait(Session):
    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        live = self.live
        if self.replays:
            self.live = set()
        super().on_record(partition, epoch, record)
        self.live = live


class BeginsAtWatermark(Session):
    def found(self, request: dict[str, Any], end: Head, records: Any) -> None:
        log = self.node.logs[end.partition]
        super().found(request, Head(partition=end.partition, epoch=log.epoch, offset=log.hi), records)


class BeginsBeforePast(Session):
    def found(self, request: dict[str, Any], end: Head, records: Any) -> None:
        past = [Due(end.partition, end.epoch, record) for record in records]
        since = (records[0].offset or 1) - 1 if records else end.offset
        self.start(request, {end.partition: Position(end.partition, end.epoch, since)}, past)


class KeepsReplayOfRemovedFilter(Session):
    def unsubscribe(self, request: dict[str, Any]) -> None:
        self.live.discard(request["topic"])


class EndsWithHeadOfLog(Session):
    def position(self) -> dict[int, Position]:
        broker = self.node.broker
        return {p: Position(p, broker[p].epoch, broker[p].end) for p in super().position()}


class MarksHeldAsLive(Session):
    """Sends the messages that were held back without `replay`, after the end of the past."""

    def pump_replay(self, number: int, sending: Sending, count: int) -> None:
        before = len(self.wire)
        super().pump_replay(number, sending, count)
        for frame in self.wire[before:]:
            if frame["type"] == "message" and count == 1:
                frame.pop("replay", None)


class AnswersWithEnd(Replay):
    def answer(self) -> Answer:
        answer = super().answer()
        return answer if answer.gap is not None or self.recovery.answer is None else self.recovery.answer


class KeepsPastAfterGap(Replay):
    def answer(self) -> Answer:
        past = list(self._past)
        answer = super().answer()
        self._past.extend(past[len(self._past) :])
        return answer


class EndsAfterPast(Replay):
    @property
    def settled(self) -> bool:
        return not self._past and not self.recovery.is_waiting


class GapReadAsEmpty(Recovery):
    def found(self, span: ReadSpan, result: ReadResult) -> None:
        super().found(span, ReadResult(records=result.records))


# -- rules of the client


class PastMovesCursor(ClientState):
    def _read_message(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from super()._read_message(frame)
        yield from super()._read_pos({"cursor": frame["pos"]})

    _READERS = {**ClientState._READERS, "message": _read_message}  # type: ignore[misc]  # noqa: RUF012


class EndMovesNoCursor(ClientState):
    def _read_replayed(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from super()._read_replayed({name: value for name, value in frame.items() if name != "cursor"})

    _READERS = {**ClientState._READERS, "replayed": _read_replayed}  # type: ignore[misc]  # noqa: RUF012


class CoversAtAnswer(ClientState):
    """Resumes a filter from the client's cursor as soon as the node has answered."""

    def offline(self) -> None:
        for replay in list(self._replays._all.values()):
            if replay.cursor is not None and replay.number:
                self._cursor = merge(replay.cursor, self._cursor or {})
                replay.cursor = self._cursor
        super().offline()


class BeginsAgain(ClientState):
    def offline(self) -> None:
        super().offline()
        for replay in self._replays._all.values():
            replay.cursor = None if replay.last else replay.cursor


class TakesCursorBeforeGap(ClientState):
    def _read_ack(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        if frame.get("recovered") is False:
            frame = {**frame, "recovered": True}
        yield from super()._read_ack(frame)

    _READERS = {**ClientState._READERS, "ack": _read_ack}  # type: ignore[misc]  # noqa: RUF012


class ForgetsProgress(ClientState):
    """Requests the rest of a past from where it began."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        on_message = self._replays.on_message

        def without_progress(number: object, message: Message, news: Mapping[int, Position]) -> Iterable[Event]:
            return on_message(number, message, {})

        self._replays.on_message = without_progress  # type: ignore[method-assign]


class Mutants:
    """Sets of rules with one broken rule each."""

    ALL: ClassVar[dict[str, Rules]] = {
        "live messages are lost during the replay": Rules(session=HearsNothingDuringReplay),
        "a replay leaves out what another filter delivers": Rules(session=LeavesOutOtherFilters),
        "other filters miss messages during a replay": Rules(session=OthersWait),
        "the recovery begins at the watermark": Rules(session=BeginsAtWatermark),
        "the recovery begins before the past": Rules(session=BeginsBeforePast),
        "a removed filter comes back": Rules(session=KeepsReplayOfRemovedFilter),
        "the last cursor is the broker's head": Rules(session=EndsWithHeadOfLog),
        "messages of a replay are sent as live": Rules(session=MarksHeldAsLive),
        "the answer's cursor is the end of the past": Rules(replay=AnswersWithEnd),
        "the past is sent in spite of a gap": Rules(replay=KeepsPastAfterGap),
        "the replay ends before everything was sent": Rules(replay=EndsAfterPast),
        "a gap is read as nothing missed": Rules(recovery=GapReadAsEmpty),
        "messages of a past move the client's cursor": Rules(state=PastMovesCursor),
        "the end of a past moves no cursor": Rules(state=EndMovesNoCursor),
        "the client's cursor covers a past too early": Rules(state=CoversAtAnswer),
        "a lost connection begins the past again": Rules(state=BeginsAgain),
        "the client takes the cursor before the gap": Rules(state=TakesCursorBeforeGap),
        "the client forgets the progress of a past": Rules(state=ForgetsProgress),
    }


@pytest.mark.parametrize("name", Mutants.ALL)
def test_model_detects_broken_rule(name: str) -> None:
    with pytest.raises(AssertionError):
        search(CASES, partial(play, Mutants.ALL[name]))
