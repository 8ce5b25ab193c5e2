"""What a node reports: deliveries and states to its sink, and errors to its callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dws_core._errors import BrokerUnavailable
from dws_core._log.contract import TailSink
from dws_core._log.records import BrokerState
from dws_core._log.stream.io import failures
from dws_core._log.stream.tail import Control
from dws_core._log.tail import Advance, Lost


class Reports:
    """The reports of one node. A failing sink does not affect the node.

    Args:
        where: Name of the broker for texts, without secrets.
        sink: Receives deliveries and states.

    Attributes:
        state: The last reported state.
        why: Why there is no connection, in a few words.
    """

    def __init__(self, where: str, sink: TailSink) -> None:
        self.where = where
        self.state: BrokerState = "connecting"
        self.why = "no connection yet"
        self._detail = ""
        self._sink = sink
        self._loop = asyncio.get_running_loop()

    def connected(self) -> None:
        """Report that all partitions are live."""
        self._tell("live", f"connected to {self.where}")

    def behind(self, detail: str) -> None:
        """Report that the node works, but not as it should."""
        self._tell("degraded", f"{self.where}: {detail}")

    def catching_up(self) -> None:
        """Report that the connection is back, after it was lost."""
        if self.state == "degraded":
            self.behind("connected again, and reading the missed records")

    def failed(self, why: str) -> None:
        """Note that the connection is lost. A node that was never connected remains in the state `connecting`."""
        self.why = why
        if self.state != "connecting":
            self.behind(why)

    def blocked(self, reason: str) -> None:
        """Report that the broker accepts nothing."""
        self._tell("blocked", f"{self.where} accepts no messages: {reason}")

    def closed(self) -> None:
        """Report the end."""
        self._tell("closed", "stopped")

    def deliver(self, event: Advance | Lost) -> None:
        """Pass records or a gap to the sink."""
        self._call(event.tell)

    def control(self, event: Control) -> None:
        """Pass a control message to the sink."""
        self._call(lambda sink: sink.on_control(event.sender, event.payload))

    def unavailable(self, why: str = "") -> BrokerUnavailable:
        """Return the error for a call that the broker cannot serve now."""
        return failures.unavailable(self.where, why or self.why)

    def _tell(self, state: BrokerState, detail: str) -> None:
        if (state, detail) != (self.state, self._detail):
            self.state, self._detail = state, detail
            self._call(lambda sink: sink.on_state(state, detail))

    def _call(self, tell: Callable[[TailSink], None]) -> None:
        try:
            tell(self._sink)
        except Exception as error:  # noqa: BLE001 -- a failing sink must not affect the tail
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})
