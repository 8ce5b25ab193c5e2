"""Fixtures of the broker suite."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ClassVar, Protocol

import pytest

from dws_core import create_broker
from dws_core.plugin import BrokerInterface, BrokerSpec, BrokerURL, LogBroker, PluginRegistry
from dws_core.testing.faults.broker_faults import BrokerFaults
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.conformance import Conformance
from dws_core.testing.suites.peers import LogPeer, Peer, PlainPeer
from dws_core.testing.suites.selection import constant, is_constant

Sever = Callable[[], Awaitable[None]]
CountOperations = Callable[[], Awaitable[int]]


class OpenPeer(Protocol):
    """Opens another node, which is closed at the end of the test."""

    async def __call__(self, channel: str | None = None, *, partitions: int = 0) -> Any:
        """Return a subscribed `LogPeer` or `PlainPeer`.

        Args:
            channel: Name of the channel. If None, the channel of the test.
            partitions: Number of partitions of a log. If 0, the number that the broker asks for.
        """
        ...


@pytest.mark.anyio
class BrokerBase(Conformance):
    """The fixtures of the suite. `broker_url` is required. Override others if necessary.

    Attributes:
        broker: Class of the broker at the URL, which selects the tests. If None, it is found through `broker_url`. That
            works if this fixture uses no fixtures from outside the class.
    """

    broker: ClassVar[type[BrokerInterface] | type[LogBroker] | None] = None

    @pytest.fixture
    def broker_url(self) -> str:
        """URL of a running broker. Two brokers with this URL must be two nodes of one system."""
        raise NotImplementedError("the suite needs a fixture 'broker_url'. Fix: define it in your subclass")

    @pytest.fixture
    def sever(self) -> Sever | None:
        """Async function that cuts the open connections of all brokers at the URL. If None, its tests are left out."""
        return None

    @pytest.fixture
    def fault(self) -> BrokerFaults | None:
        """The faults that can be caused in the broker at the URL. If None, the tests that need them are left out."""
        return None

    @pytest.fixture
    def count_operations(self) -> CountOperations | None:
        """Async function that returns how many requests the broker has received. If None, its test is left out."""
        return None

    @pytest.fixture
    def unreachable_url(self) -> str | None:
        """A URL with a password at which no broker responds. If None, its test is left out."""
        return None

    @pytest.fixture
    def hang_limit_s(self) -> float:
        """Number of seconds without any progress after which a wait fails."""
        return 30.0

    @pytest.fixture
    def queue_limit_bytes(self) -> int:
        """Maximum size of all messages that a node may queue for one partition, in bytes."""
        return 134_217_728

    @pytest.fixture
    def cause(self, fault: BrokerFaults | None) -> Iterator[Cause]:
        """Causes the faults of `fault`, and checks that they do not block the event loop."""
        cause = Cause(fault)
        yield cause
        cause.check()

    @pytest.fixture
    def broker_spec(self, broker_url: str) -> BrokerSpec:
        """The record of the installed plugin that handles the URL."""
        create_broker(broker_url)  # raises a helpful error if no plugin offers the scheme
        return PluginRegistry().broker_spec(BrokerURL.parse(broker_url).scheme, where=broker_url)

    @pytest.fixture
    def plugin_package(self, broker_spec: BrokerSpec) -> str | None:
        """The package of the record, or None if it is not installed, as in the tests of the suite itself."""
        package = broker_spec.load.__module__.partition(".")[0]
        return None if importlib.util.find_spec(package) is None else package

    @pytest.fixture
    def broker_class(self, broker_spec: BrokerSpec) -> type[BrokerInterface] | type[LogBroker]:
        """The class that the record loads."""
        return broker_spec.load()

    @pytest.fixture
    def make_broker(
        self, broker_class: type[BrokerInterface] | type[LogBroker], broker_url: str
    ) -> Callable[[], BrokerInterface | LogBroker]:
        """A function that builds a broker without connecting it."""
        return lambda: broker_class.from_url(BrokerURL.parse(broker_url))

    @pytest.fixture
    def channel(self) -> str:
        """A unique channel name."""
        return f"dws-test-{secrets.token_hex(6)}"

    @pytest.fixture
    def make_peer(
        self, make_broker: Callable[[], BrokerInterface | LogBroker], channel: str, hang_limit_s: float
    ) -> Callable[..., Any]:
        """A function that builds a node without opening it."""

        def make(name: str | None = None, *, partitions: int = 0) -> Peer:
            broker = make_broker()
            if isinstance(broker, LogBroker):
                return LogPeer(broker, name or channel, hang_limit_s, partitions=partitions)
            return PlainPeer(broker, name or channel, hang_limit_s)

        return make

    @pytest.fixture
    async def open_peer(self, make_peer: Callable[..., Peer]) -> AsyncIterator[OpenPeer]:
        """A function that opens a node. All nodes are checked and closed at the end of the test."""
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
