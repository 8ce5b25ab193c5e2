"""What the tests of a plugin can do to its broker."""

from __future__ import annotations


class BrokerFaults:
    """Trouble for the broker at the suite's URL. Override what your tests can do; what you leave out is skipped.

    All nodes at the URL meet the trouble. Each method returns when it has happened, not when the brokers got over it.

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
        """Break the connections through which nodes hear of records. The server goes on."""
        raise NotImplementedError

    async def cut_commands(self) -> None:
        """Break the connections through which nodes publish and read. The server goes on."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Kill the server and start it with all that it had acknowledged."""
        raise NotImplementedError

    async def wipe(self) -> None:
        """Kill the server and start it without its data."""
        raise NotImplementedError

    async def take_down(self) -> None:
        """Kill the server; `bring_up` follows."""
        raise NotImplementedError

    async def bring_up(self) -> None:
        """Start it again, with its data where it keeps any."""
        raise NotImplementedError

    async def freeze(self) -> None:
        """Stop the server from answering without breaking a connection; `thaw` follows.

        Return when the server has stopped. A process goes on for a while after `os.kill(pid, signal.SIGSTOP)` returned: on
        Linux, wait until each `/proc/<pid>/task/*/stat` shows the state `T`.
        """
        raise NotImplementedError

    async def thaw(self) -> None:
        """Let it go on where it stopped."""
        raise NotImplementedError

    @classmethod
    def has(cls, name: str) -> bool:
        """Whether a method is overridden, and not by None."""
        return getattr(cls, name) not in (None, getattr(BrokerFaults, name))
