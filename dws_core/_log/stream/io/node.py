"""A started stream broker: it keeps a session open, and passes the events of the streams on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from dws_core._log.backoff import Backoff
from dws_core._log.records import Layout
from dws_core._log.stream.envelope import Kind
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.io.failures import closed, is_expected, leaf, reason_of, startup_error
from dws_core._log.stream.io.host import Log, Ticket
from dws_core._log.stream.io.publisher import Publisher
from dws_core._log.stream.io.queries import Queries
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.io.session import Session
from dws_core._log.stream.lane import from_any
from dws_core._log.stream.partition_log import Live, PartitionEvent, PartitionLog
from dws_core._log.stream.publishing import PublishQueue
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.tail import Control, ProbeSeen, Stored
from dws_core._log.stream.wire import StreamWire, WireInfo, WireUnusable, sends_to_all
from dws_core._log.tail import Advance, Lost
from dws_core._tasks import Tasks

logger = logging.getLogger("dws.stream")


class StreamNode:
    """A started broker.

    Args:
        make_wire: Returns a new wire.
        node: Id of this node.
        layout: The channel.
        reports: Receives what arrives.
        settings: How to use the wire.
        clock: The time.

    Attributes:
        id: Id of this node.
        publisher: The publishes.
        queries: The calls that wait for the streams.
    """

    def __init__(
        self,
        make_wire: Callable[[], StreamWire],
        *,
        node: bytes,
        layout: Layout,
        reports: Reports,
        settings: StreamSettings,
        clock: Clock,
    ) -> None:
        self.id = node
        self.layout = layout
        self.settings = settings
        self.clock = clock
        self.logs: list[Log] = [
            PartitionLog(number, node, PublishQueue(settings)) for number in range(layout.partitions)
        ]
        self.publisher = Publisher(self.logs, reports=reports, clock=clock, flush=self._flush)
        self.queries = Queries(self.logs, settings=settings, clock=clock, reports=reports)
        self._make_wire = make_wire
        self._reports = reports
        self._tasks = Tasks()
        self._session: Session | None = None
        self._was_live = False
        self._behind: set[int] = set()
        self._warned: set[str] = set()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Connect, and return when all partitions are live.

        Raises:
            BrokerError: The first session has failed.
        """
        self._tasks.spawn(self._keep(), name="dws stream")
        try:
            await self._started
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, drain_s: float) -> None:
        """Send waiting publishes for at most `drain_s` seconds, then end everything, also if this is cancelled."""
        try:
            if drain_s > 0:
                await self.publisher.drained(drain_s)
        finally:
            await asyncio.shield(asyncio.get_running_loop().create_task(self._end(), name="dws stream end"))

    async def _end(self) -> None:
        await self._tasks.stop()
        self.publisher.close()
        self.queries.waiters.fail(closed())
        self._reports.closed()

    async def _keep(self) -> None:
        """Open one session after the other."""
        backoff = Backoff(self.clock.rng.random)
        while True:
            self._was_live = False
            try:
                self._session = Session(self, self._make_wire())
                self.queries.wire = self._session.wire
                self.publisher.has_lane = sends_to_all(self._session.wire)
                await self._run(self._session)
            except Exception as error:  # noqa: BLE001 -- whatever a wire raises, the node opens another one
                self._failed(leaf(error))
            if self._was_live:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _run(self, session: Session) -> None:
        """Run a session in a task of its own.

        Before Python 3.13, a `TaskGroup` that fails forgets a cancellation of its task, and may count one that nobody
        asked for, so that wires could not recognize those of their libraries.
        """
        task = asyncio.get_running_loop().create_task(session.run(), name="dws session")
        try:
            await task
        except Exception as error:
            if (keeper := asyncio.current_task()) is not None and keeper.cancelling():
                raise asyncio.CancelledError from error
            raise

    def _failed(self, error: BaseException) -> None:
        self._session = None
        self._behind.clear()
        if not is_expected(error):
            logger.error("the wire of %s failed", self._reports.where, exc_info=error)
        self._reports.failed(reason_of(error))
        if not self._started.done():
            self._started.set_exception(startup_error(self._reports.where, error))
        self.queries.waiters.fail(self._reports.unavailable())

    @property
    def stores(self) -> bool:
        """Whether the broker stores messages. Known once this is started."""
        return all(log.stores for log in self.logs)

    # -- what the session calls

    @property
    def is_started(self) -> bool:
        """Whether an earlier session was live."""
        return self._started.done()

    def on_open(self, info: WireInfo) -> None:
        """Note the limits of the streams, and log the warnings of the wire.

        Raises:
            WireUnusable: The broker has stored messages, and cannot store any more.
        """
        for text in set(info.warnings) - self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", self._reports.where, text)
        self.publisher.limit(info.max_bytes)
        if self.is_started and self.stores and not info.stores:
            raise WireUnusable("it does not store messages any more")
        for log in self.logs:
            log.max_skip, log.stores = info.max_skip, log.stores and info.stores

    def on_events(self, log: Log, events: list[PartitionEvent]) -> None:
        """Handle the events of a partition that do not need the wire."""
        for event in events:
            if isinstance(event, Advance | Lost):
                if log.number in self.queries.interest:
                    self._reports.deliver(event)
            elif isinstance(event, Stored):
                queue = log.lane.queue if event.is_lane else log.queue
                self.publisher.complete(queue.stored(event.first, event.receipts))
            elif isinstance(event, Control):
                self._reports.control(event)
            elif isinstance(event, ProbeSeen):
                self.queries.waiters.probe_seen(log.number, event.number)
            elif isinstance(event, Live):
                self._on_live(log.number)
        if log.is_live:
            self.queries.waiters.reached(log.number, log.end)

    def on_control(self, data: bytes) -> Log | None:
        """Read a message to all nodes that came through the wire. Return its partition, if it can be read."""
        number, envelope = from_any(data)
        if envelope is None or number >= len(self.logs):
            return None
        log = self.logs[number]
        if envelope.kind is Kind.RECORDS:
            self.on_events(log, log.feed_lane(envelope))
            self._flush(log)
        elif envelope.kind is Kind.CONTROL and envelope.drafts:
            self._reports.control(Control(envelope.publisher, envelope.drafts[0].payload))
        return log

    def on_outcomes(self, outcomes: list[tuple[Ticket, Any]]) -> None:
        """Complete publishes."""
        self.publisher.complete(outcomes)

    def on_blocked(self, reason: str | None) -> None:
        """Report that the broker accepts nothing, or accepts appends again."""
        if reason is not None:
            self._reports.blocked(reason)
        elif self._reports.state == "blocked":
            self._report_live()

    def on_catching_up(self) -> None:
        """Report that the connection is back, and that there is much to read."""
        self._reports.catching_up()

    def on_lag(self, log: Log, *, is_behind: bool) -> None:
        """Report `degraded` while a tail is far behind its stream."""
        if is_behind is not (log.number in self._behind):
            self._behind ^= {log.number}
            if self._reports.state != "blocked":
                self._report_live()

    def _on_live(self, number: int) -> None:
        self.queries.waiters.live(number)
        if all(log.is_live for log in self.logs):
            self._was_live = True
            self._report_live()
            if not self._started.done():
                self._started.set_result(None)

    def _report_live(self) -> None:
        if self._behind:
            numbers = ", ".join(map(str, sorted(self._behind)))
            self._reports.behind(f"more than {self.settings.behind_s:g} s behind in partition {numbers}")
        else:
            self._reports.connected()

    def _flush(self, log: Log) -> None:
        if self._session is not None:
            self._session.flush(log)
