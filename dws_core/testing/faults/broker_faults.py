"""The faults that the tests of a plugin can cause in its broker."""

from __future__ import annotations

from collections.abc import Awaitable


class BrokerFaults:
    """Faults of the broker at the suite's URL.

    Override the methods that you can implement. The tests that need other methods are left out. A fault affects all
    nodes at the URL. Each method returns when the fault has happened, not when the brokers have recovered. The next
    fault may follow before that. The suite calls one method at a time.

    Write a method that blocks as a plain function. The suite runs it in a thread, so that the nodes work on while the
    fault happens. An `async` method runs on the event loop of the nodes. The suite fails if it blocks the loop.

    Example:
        ```python
        class Faults(BrokerFaults):
            def restart(self) -> None:
                server.kill()
                server.start()


        class TestMyBroker(BrokerConformance):
            @pytest.fixture
            def fault(self) -> Faults:
                return Faults()
        ```
    """

    def cut_tail(self) -> Awaitable[None] | None:
        """Break the connections on which nodes receive records. The server keeps running."""
        raise NotImplementedError

    def cut_commands(self) -> Awaitable[None] | None:
        """Break the connections on which nodes publish and read. The server keeps running.

        Replies that the server has not yet sent are lost.
        """
        raise NotImplementedError

    def restart(self) -> Awaitable[None] | None:
        """Kill the server, and start it with all data that it had acknowledged."""
        raise NotImplementedError

    def wipe(self) -> Awaitable[None] | None:
        """Kill the server, and start it without its data."""
        raise NotImplementedError

    def take_down(self) -> Awaitable[None] | None:
        """Kill the server. The suite calls `bring_up` afterwards."""
        raise NotImplementedError

    def bring_up(self) -> Awaitable[None] | None:
        """Start the server again, with its data if it is durable."""
        raise NotImplementedError

    def freeze(self) -> Awaitable[None] | None:
        """Stop the server's replies without breaking a connection. The suite calls `thaw` afterwards.

        Return when the server has stopped. A process continues for a while after `os.kill(pid, signal.SIGSTOP)` has
        returned. On Linux, wait until each `/proc/<pid>/task/*/stat` contains the state `T`.
        """
        raise NotImplementedError

    def thaw(self) -> Awaitable[None] | None:
        """Let the server continue. It also processes what it received while it was frozen."""
        raise NotImplementedError

    def snapshot(self) -> Awaitable[None] | None:
        """Save a copy of the server's data for `set_back`. The server keeps running."""
        raise NotImplementedError

    def set_back(self) -> Awaitable[None] | None:
        """Kill the server, and start it with the data of the last `snapshot`, like an old backup or a stale replica.

        The data itself is unchanged, so it still has the epoch of the records that were stored after the snapshot.
        """
        raise NotImplementedError

    @classmethod
    def has(cls, name: str) -> bool:
        """Return whether a method is overridden, and not with None."""
        return getattr(cls, name) not in (None, getattr(BrokerFaults, name))
