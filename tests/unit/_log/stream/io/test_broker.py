from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from support.stream_nodes import StreamDesk, TroubledBroker, Troubles, UnstoredWire
from support.streams import MemoryServer, MemoryWire
from support.virtual_time import virtual

from dws_core.plugin import (
    BrokerClosed,
    BrokerError,
    BrokerURL,
    History,
    InvalidBrokerURL,
    LogCapabilities,
    StreamLogBroker,
    StreamWire,
)


@dataclass(frozen=True, kw_only=True)
class _Options:
    retries: int = 3


class _OptionsBroker(StreamLogBroker):
    capabilities: ClassVar[LogCapabilities] = LogCapabilities()
    options_class = _Options

    def wire(self) -> StreamWire:
        return MemoryWire(MemoryServer())


class _PlainBroker(_OptionsBroker):
    options_class = StreamLogBroker.options_class


def test_options_are_read_from_the_url() -> None:
    assert _OptionsBroker.from_url(BrokerURL.parse("x://h?retries=7")).options == _Options(retries=7)
    assert _OptionsBroker(BrokerURL.parse("x://h"), _Options(retries=9)).options.retries == 9


def test_unknown_option_is_refused() -> None:
    for broker in (_OptionsBroker, _PlainBroker):
        with pytest.raises(InvalidBrokerURL):
            broker.from_url(BrokerURL.parse("x://h?nonsense=7"))


@virtual
async def test_calls_before_start_name_the_remedy() -> None:
    broker = TroubledBroker(MemoryServer(), Troubles())
    await broker.stop()
    for call in (broker.set_interest(frozenset()), broker.heads([]), broker.send_control(b"")):
        with pytest.raises(BrokerClosed, match="Fix: call start"):
            await call
    with pytest.raises(BrokerClosed):
        await broker.publish(0, "t", b"", history=History())
    with pytest.raises(BrokerClosed):
        await broker.read(StreamDesk().span(0, 1, epoch="e"))


@virtual
async def test_second_start_is_refused() -> None:
    async with StreamDesk() as desk:
        with pytest.raises(BrokerError, match="started already"):
            await desk.start()


@virtual
async def test_text_shows_state_and_no_secret() -> None:
    desk = StreamDesk()
    assert str(desk.broker) == "<TroubledBroker troubled://user:***@host/x stopped>"
    await desk.start()
    assert str(desk.broker).endswith(" started>")
    await desk.broker.stop()
    await desk.broker.stop()


@virtual
async def test_history_size_and_ttl_reach_the_stream() -> None:
    async with StreamDesk() as desk:
        kept = await desk.publish(b"a", size=1)
        ephemeral = await desk.publish(b"b", size=0)
        assert kept.offset
        assert ephemeral.offset is None
        assert [record.offset is None for record in desk.sink.records] == [False, True]


@virtual
async def test_capabilities_of_each_start_depend_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = StreamDesk(wire=UnstoredWire)
    async with desk:
        assert not desk.broker.capabilities.recovery
        assert TroubledBroker.capabilities.recovery
    monkeypatch.setattr(UnstoredWire, "stores", True)
    async with desk:
        assert desk.broker.capabilities.recovery
        assert (await desk.publish()).offset
