"""Publishes of a node while faults happen, and checks of their outcomes."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

from dws_core.plugin import (
    BrokerOverloaded,
    BrokerState,
    BrokerUnavailable,
    History,
    PublishOutcomeUnknown,
    Receipt,
    Record,
    partition_of,
)
from dws_core.testing.suites.peers import TEMPORARY, LogPeer

_UNSENT: Final = (BrokerUnavailable, BrokerOverloaded)
_HISTORY: Final = History(size=100_000)
_BURST: Final = 10
_PAUSE_S: Final = 0.01
"""Pause of a task between two bursts, so that a long fault does not fill the log."""

_TOPICS: Final = 5
_TASKS: Final = 3
_TICKS: Final = 20
_UNCONNECTED: Final = 0.25
"""Share of the faults that do not wait until the nodes have recovered from the fault before."""


class Load:
    """The publishes of one node, without keys, so that the broker itself must prevent repeats.

    Args:
        peer: An opened node.
        name: Prefix of its topics and payloads.

    Attributes:
        unanswered: Payloads that were stored, but whose reply was lost. The node was not connected when they arrived, or
            the publish raised `PublishOutcomeUnknown`.
        completed: Number of publishes with an outcome.
    """

    def __init__(self, peer: LogPeer, name: str) -> None:
        self.peer = peer
        self.unanswered: set[bytes] = set()
        self.completed: int = 0
        self._name = name
        self._futures: dict[bytes, asyncio.Future[Receipt]] = {}
        self._arrived: set[bytes] = set()
        self._unknown: set[bytes] = set()
        self._interrupted: set[bytes] = set()  # those without an outcome when the node lost its connection
        self._stopping = False
        peer.sink.observe = self._observe

    def submit(self, count: int, *, deadline_s: float) -> list[asyncio.Future[Receipt]]:
        """Publish some messages in one tick, to several topics."""
        futures = []
        for number in range(len(self._futures), len(self._futures) + count):
            payload = b"%s/%d" % (self._name.encode(), number)
            topic = f"{self._name}/{number % _TOPICS}"
            future = self.peer.submit(topic, payload, history=_HISTORY, deadline_s=deadline_s)
            future.add_done_callback(partial(self._on_outcome, payload))
            self._futures[payload] = future
            futures.append(future)
        return futures

    async def run(self) -> None:
        """Publish until `stop` is called, with several bursts in flight."""
        await asyncio.gather(*(self._run() for _ in range(_TASKS)))

    def stop(self) -> None:
        """End `run` after the bursts that are in flight."""
        self._stopping = True

    def check(self, node: LogPeer) -> None:
        """Check that a node has received what the outcomes promise. All messages have arrived there.

        Raises:
            AssertionError: They are not met. The text explains how.
        """
        prefix = b"%s/" % self._name.encode()
        times = Counter(r.payload for r in node.records if r.payload.startswith(prefix))
        repeated = [payload for payload, count in times.items() if count > 1]
        assert not repeated, (
            f"{len(repeated)} messages arrived twice, for example {repeated[0]!r}, whose publish "
            f"{self._describe(repeated[0])}. Fix: resend a publish with the number of its first attempt, and drop repeats"
        )
        self._check_outcomes(times)
        self._check_order(node, list(times))

    def _check_outcomes(self, times: Counter[bytes]) -> None:
        for payload in self._futures:
            error = self._error(payload)
            assert error is None or isinstance(error, TEMPORARY), (
                f"a temporary fault must not raise {type(error).__name__}: {error}"
            )
            assert error is not None or payload in times, f"{payload!r} was acknowledged, but never arrived"
            assert payload not in times or not isinstance(error, _UNSENT), (
                f"the publish of {payload!r} {self._describe(payload)}, which means that it is certainly not stored. But it "
                "arrived. Fix: raise PublishOutcomeUnknown for a publish that was sent and has no reply"
            )

    def _check_order(self, node: LogPeer, arrived: list[bytes]) -> None:
        last: dict[int, int] = {}
        for payload in arrived:
            number = int(payload.rpartition(b"/")[2])
            partition = partition_of(f"{self._name}/{number % _TOPICS}", node.layout)
            assert last.get(partition, -1) < number, (
                f"publish {number} of a node arrived after publish {last[partition]}, which came later. Fix: after a "
                "lost connection, send the first publish without a reply first"
            )
            last[partition] = number

    async def _run(self) -> None:
        while not self._stopping:
            await self.peer.within(asyncio.wait(self.submit(_BURST, deadline_s=self.peer.hang_limit_s / 2)))
            await asyncio.sleep(_PAUSE_S)

    def _on_outcome(self, payload: bytes, future: asyncio.Future[Receipt]) -> None:
        self.completed += 1
        if not future.cancelled() and isinstance(future.exception(), PublishOutcomeUnknown):
            self._unknown.add(payload)
            self.unanswered |= {payload} & self._arrived

    def _observe(self, records: Sequence[Record], state: BrokerState | None) -> None:
        arrived = {record.payload for record in records}
        self._arrived |= arrived
        self.unanswered |= arrived & self._unknown
        if state == "live":
            self._interrupted.clear()
        elif state is not None:
            self._interrupted |= {payload for payload, future in self._futures.items() if not future.done()}
        if self._interrupted:
            self.unanswered |= self._interrupted & self._arrived

    def _error(self, payload: bytes) -> BaseException | None:
        future = self._futures[payload]
        return None if future.cancelled() else future.exception()

    def _describe(self, payload: bytes) -> str:
        error = self._error(payload)
        return "returned a receipt" if error is None else f"raised {type(error).__name__}"


class Chance:
    """Random moments of faults, from a seed that pytest shows if the test fails."""

    def __init__(self) -> None:
        seed = secrets.randbits(32)
        sys.stdout.write(f"random moments: seed {seed}\n")
        self._rng = random.Random(seed)  # noqa: S311 -- no secret

    async def pause(self, loads: Sequence[Load]) -> None:
        """Return after a random number of publishes, at a random moment, mostly when the nodes are connected."""
        goal = sum(load.completed for load in loads) + self._rng.randrange(2 * _BURST)
        any_state = self._rng.random() < _UNCONNECTED

        async def reached() -> bool:
            is_live = all(load.peer.sink.states[-1] == "live" for load in loads)
            return (is_live or any_state) and sum(load.completed for load in loads) >= goal

        await loads[0].peer.poll_until(reached, "the nodes to reconnect and the publishes to go on after a fault")
        await self.ticks()

    async def ticks(self) -> None:
        """Return after a random number of ticks of the event loop."""
        for _ in range(self._rng.randrange(_TICKS)):
            await asyncio.sleep(0)
