"""The surroundings of a connection: a node, or a stand-in for a connection that is used without one."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from dws_core._limits.limits import Limits
from dws_core._node.connection.filter_set import FiltersInReplay
from dws_core._node.pacing import Pacer
from dws_core._node.sending.fanout import Fanout
from dws_core._node.sending.overruns import Overruns
from dws_core._node.stats import Counters
from dws_core._tasks import Tasks
from dws_core._topics.router import Router
from dws_core._topics.trie import MqttMatcher
from dws_core._wire.message import JSON, Untyped

C = TypeVar("C")


class ConnectionHost(Protocol[C]):
    """The services that a connection uses. `C` is the type of the connection."""

    tasks: Tasks
    pacer: Pacer
    router: Router[C]
    limits: Limits
    untyped: Untyped
    fanout: Fanout
    counters: Counters
    overruns: Overruns

    @property
    def replays(self) -> FiltersInReplay[C] | None:
        """The filters whose past is being sent."""
        ...

    def on_closed(self, connection: C) -> None:
        """Forget a closed connection. Called once."""
        ...

    def on_reply(self, connection: C, message: JSON) -> bool:
        """Take a client's reply to a request of the application. Return False for any other message."""
        ...


class StandaloneHost:
    """The host of a connection that was created without a manager."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.pacer = Pacer()
        self.router: Router[Any] = Router(MqttMatcher())
        self.limits = Limits(message_bytes=None, messages_per_s=None)
        self.untyped: Untyped = "broadcast"
        self.counters = Counters()
        self.overruns = Overruns()
        self.fanout = Fanout(self.counters)
        self.replays = None

    def on_closed(self, connection: Any) -> None:
        """Do nothing: there is nothing to forget."""

    def on_reply(self, connection: Any, message: JSON) -> bool:
        """Return False: there are no requests."""
        return False
