"""Fixtures of the broker suite."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar, Protocol

import pytest

from dws_core import create_broker
from dws_core.plugin import BrokerInterface, BrokerSpec, BrokerURL, LogBroker, PluginRegistry
from dws_core.testing.faults.broker_faults import BrokerFaults
from dws_core.testing.suites.conformance import Conformance
from dws_core.testing.suites.peers import LogPeer, Peer, PlainPeer
from dws_core.testing.suites.selection import constant, is_constant

Sever = Callable[[], Awaitable[None]]
CountOperations = Callable[[], Awaitable[int]]


class OpenPeer(Protocol):
    """Opens another node; it is closed when the test ends."""

    async def __call__(self, channel: str | None = None, *, partitions: int = 0) -> Any:
        """Return a `LogPeer` or a `PlainPeer` that is tuned in.

        Args:
            channel: None: the test's own.
            partitions: Of a log; 0: as many as the broker wants.
        """
        ...


@pytest.mark.anyio
class BrokerBase(Conformance):
    """Give `broker_url`; override the others where they do not fit.

    Attributes:
        broker: The class of the broker at the URL. It selects the tests. If None, it is found through `broker_url`, which
            works if that fixture uses no fixtures from outside the class.
    """

    broker: ClassVar[type[BrokerInterface] | type[LogBroker] | None] = None

    @pytest.fixture
    def broker_url(self) -> str:
        """URL of a running broker. Two brokers that are made from it must be two nodes of one system."""
        raise NotImplementedError("the suite needs a fixture 'broker_url'. Fix: define it in your subclass")

    @pytest.fixture
    def sever(self) -> Sever | None:
        """An async function that cuts the live connections of all brokers at the URL; None: no such test."""
        return None

    @pytest.fixture
    def fault(self) -> BrokerFaults | None:
        """What can be done to the broker at the URL; None: nothing, and the tests that need it are skipped."""
        return None

    @pytest.fixture
    def count_operations(self) -> CountOperations | None:
        """An async function that says how many requests the broker has had; None: no such test."""
        return None

    @pytest.fixture
    def unreachable_url(self) -> str | None:
        """A URL with a password, where no broker answers; None: no such test."""
        return None

    @pytest.fixture
    def hang_limit_s(self) -> float:
        """Number of seconds without any news after which what a test waits for counts as lost."""
        return 30.0

    @pytest.fixture
    def broker_spec(self, broker_url: str) -> BrokerSpec:
        """The record of the plugin that handles the URL, as it is installed."""
        create_broker(broker_url)  # where no plugin has the scheme, this says so, and why
        return PluginRegistry().broker_spec(BrokerURL.parse(broker_url).scheme, where=broker_url)

    @pytest.fixture
    def broker_class(self, broker_spec: BrokerSpec) -> type[BrokerInterface] | type[LogBroker]:
        """What the record loads."""
        return broker_spec.load()

    @pytest.fixture
    def make_broker(
        self, broker_class: type[BrokerInterface] | type[LogBroker], broker_url: str
    ) -> Callable[[], BrokerInterface | LogBroker]:
        """Build a broker of the URL; it is not connected."""
        return lambda: broker_class.from_url(BrokerURL.parse(broker_url))

    @pytest.fixture
    def channel(self) -> str:
        """A channel that nobody else uses."""
        return f"dws-test-{secrets.token_hex(6)}"

    @pytest.fixture
    def make_peer(
        self, make_broker: Callable[[], BrokerInterface | LogBroker], channel: str, hang_limit_s: float
    ) -> Callable[..., Any]:
        """Build a node; it is not open."""

        def make(name: str | None = None, *, partitions: int = 0) -> Peer:
            broker = make_broker()
            if isinstance(broker, LogBroker):
                return LogPeer(broker, name or channel, hang_limit_s, partitions=partitions)
            return PlainPeer(broker, name or channel, hang_limit_s)

        return make

    @pytest.fixture
    async def open_peer(self, make_peer: Callable[..., Peer]) -> AsyncIterator[OpenPeer]:
        """Open nodes; they are closed, and checked once more, when the test ends."""
        opened: list[Peer] = []

        async def open_(channel: str | None = None, *, partitions: int = 0) -> Peer:
            peer = make_peer(channel, partitions=partitions)
            opened.append(peer)
            await peer.open()
            return peer

        yield open_
        for peer in opened:
            await peer.close()
        assert not [fault for peer in opened for fault in peer.violations]

    @classmethod
    def find_broker(cls) -> object:
        return cls.broker if isinstance(cls.broker, type) else constant(cls, "broker_class")

    @classmethod
    def find_advice(cls) -> str:
        if isinstance(cls.broker, type) or is_constant(cls, "broker_class"):
            return ""
        return f"{cls.__qualname__} skips tests that are for other brokers. Fix: add `broker = …`, the class under test, to it"
