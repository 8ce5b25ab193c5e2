from __future__ import annotations

from simulation.loop import VirtualLoop
from support.stream_nodes import Sink
from support.virtual_time import virtual

from dws_core._errors import BrokerUnavailable
from dws_core._log.records import GapReason, Head
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.tail import Control
from dws_core._log.tail import Advance, Lost

HEAD = Head(partition=2, epoch="e", offset=7)


@virtual
async def test_deliveries_reach_the_sink() -> None:
    sink = Sink()
    reports = Reports("broker x", sink)
    reports.deliver(Advance(partition=2, epoch="e", lo=0, hi=7, records=[]))
    reports.deliver(Lost(reason=GapReason.TRIMMED, head=HEAD))
    reports.control(Control(b"node-a..", b"hello"))
    assert sink.gaps == [(2, GapReason.TRIMMED)]
    assert sink.controls == [(b"node-a..", b"hello")]


@virtual
async def test_state_is_reported_once() -> None:
    sink = Sink()
    reports = Reports("broker x", sink)
    reports.connected()
    reports.connected()
    reports.blocked("an alarm")
    reports.behind("the tail is 5 s behind")
    reports.closed()
    assert sink.states == [
        ("live", "connected to broker x"),
        ("blocked", "broker x accepts no messages: an alarm"),
        ("degraded", "broker x: the tail is 5 s behind"),
        ("closed", "stopped"),
    ]
    assert reports.state == "closed"


@virtual
async def test_node_that_never_connected_is_still_connecting() -> None:
    sink = Sink()
    reports = Reports("broker x", sink)
    reports.failed("refused")
    assert (sink.states, reports.state) == ([], "connecting")
    reports.connected()
    reports.catching_up()
    assert len(sink.states) == 1, "there is nothing to catch up with"
    reports.failed("cut")
    assert sink.states[-1] == ("degraded", "broker x: cut")
    reports.catching_up()
    assert sink.states[-1] == ("degraded", "broker x: connected again, and reading the missed records")


@virtual
async def test_unavailable_names_the_last_reason() -> None:
    reports = Reports("broker x", Sink())
    assert isinstance(reports.unavailable(), BrokerUnavailable)
    assert "broker x is unavailable: no connection yet." in str(reports.unavailable())
    reports.failed("cut")
    assert "broker x is unavailable: cut." in str(reports.unavailable())
    assert "broker x is unavailable: silent." in str(reports.unavailable("silent"))


def test_failing_sink_is_reported_to_the_loop() -> None:
    async def deliver() -> None:
        sink = Sink()
        sink.fails = True
        Reports("broker x", sink).deliver(Advance(partition=0, epoch="e", lo=0, hi=1, records=[]))

    loop = VirtualLoop()
    loop.run_until_complete(deliver())
    loop.close()
    assert "a tail sink of dws failed" in loop.failures[0]
