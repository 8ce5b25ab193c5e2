"""The faults that the tests of a plugin can cause in its broker."""

from __future__ import annotations


class BrokerFaults:
    """Faults of the broker at the suite's URL.

    Override the methods that you can implement. The tests that need other methods are left out. A fault affects all
    nodes at the URL. Each method returns when the fault has happened, not when the brokers have recovered.

    Example:
        ```python
        class Faults(BrokerFaults):
            async def cut_tail(self) -> None:
                await admin.execute("CLIENT", "KILL", "TYPE", "pubsub")


        class TestMyBroker(BrokerConformance):
            @pytest.fixture
            def fault(self) -> BrokerFaults:
                return Faults()
        ```
    """

    async def cut_tail(self) -> None:
        """Break the connections on which nodes receive records. The server keeps running."""
        raise NotImplementedError

    async def cut_commands(self) -> None:
        """Break the connections on which nodes publish and read. The server keeps running."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Kill the server, and start it with all data that it had acknowledged."""
        raise NotImplementedError

    async def wipe(self) -> None:
        """Kill the server, and start it without its data."""
        raise NotImplementedError

    async def take_down(self) -> None:
        """Kill the server. The suite calls `bring_up` afterwards."""
        raise NotImplementedError

    async def bring_up(self) -> None:
        """Start the server again, with its data if it is durable."""
        raise NotImplementedError

    async def freeze(self) -> None:
        """Stop the server's replies without breaking a connection. The suite calls `thaw` afterwards.

        Return when the server has stopped. A process continues for a while after `os.kill(pid, signal.SIGSTOP)` has
        returned. On Linux, wait until each `/proc/<pid>/task/*/stat` contains the state `T`.
        """
        raise NotImplementedError

    async def thaw(self) -> None:
        """Let the server continue."""
        raise NotImplementedError

    @classmethod
    def has(cls, name: str) -> bool:
        """Return whether a method is overridden, and not with None."""
        return getattr(cls, name) not in (None, getattr(BrokerFaults, name))
