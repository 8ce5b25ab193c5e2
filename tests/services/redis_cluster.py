"""A private Redis cluster for tests: servers that share the slots, optionally with replicas."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from services.redis import PrivateRedis, free_port
from support.timeouts import HANG_S

SLOTS: Final = 16_384


class PrivateCluster:
    """A cluster that the test may stop, freeze or change.

    Args:
        primaries: Number of servers that share the slots.
        replicas: Number of replicas of the first primary.
    """

    def __init__(self, *, primaries: int = 3, replicas: int = 0) -> None:
        self.servers = [
            PrivateRedis(
                aof=True,
                **{
                    "cluster-enabled": "yes",
                    "cluster-port": str(free_port()),
                    "cluster-node-timeout": "1000" if replicas else "10000",  # who takes over must do so soon
                    "cluster-require-full-coverage": "no",
                    "repl-diskless-sync-delay": "0",
                },
            )
            for _ in range(primaries + replicas)
        ]
        self.primaries = self.servers[:primaries]
        self.replicas = self.servers[primaries:]

    @property
    def url(self) -> str:
        """The URL of the cluster."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        """Start all servers and assign the slots. Return when every server has the new configuration."""
        for server in self.servers:
            server.start()
        for number, server in enumerate(self.primaries):
            first, last = (SLOTS * n // len(self.primaries) for n in (number, number + 1))
            server.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last - 1))
        for server in self.servers[1:]:
            first_one = self.servers[0]
            bus = first_one.settings["cluster-port"]
            server.command("CLUSTER", "MEET", "127.0.0.1", str(first_one.port), bus)
        until(
            lambda: all(self._is_connected_to_all(server) for server in self.servers),
            "every server is connected to all others",
        )
        for replica in self.replicas:
            replica.command("CLUSTER", "REPLICATE", self.id_of(self.servers[0]))
            until(lambda r=replica: b"master_link_status:up" in r.command("INFO", "replication"), "the replica follows")
        until(lambda: all(self.is_ok(server) for server in self.servers), "the cluster works")

    def restart(self) -> None:
        """Kill all servers, like a crash, and start them again."""
        self.kill()
        for server in self.servers:
            server.start()
        until(lambda: all(self.is_ok(server) for server in self.servers), "the cluster works again")

    def kill(self) -> None:
        """Kill all servers, like a crash."""
        for server in self.servers:
            server.kill()

    def move_slot(self, slot: int, source: PrivateRedis, target: PrivateRedis) -> None:
        """Move a slot and its keys while it is used (Redis cluster specification, "Live reconfiguration")."""
        source_id, target_id = self.id_of(source), self.id_of(target)
        assert target.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source_id) == b"+OK\r\n"
        assert source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", target_id) == b"+OK\r\n"
        while keys := _texts(source.command("CLUSTER", "GETKEYSINSLOT", str(slot), "100")):
            reply = source.command("MIGRATE", "127.0.0.1", str(target.port), "", "0", "60000", "KEYS", *keys)
            assert reply in (b"+OK\r\n", b"+NOKEY\r\n"), reply
        for server in (target, source, *self.primaries):
            assert server.command("CLUSTER", "SETSLOT", str(slot), "NODE", target_id) == b"+OK\r\n"

    def id_of(self, server: PrivateRedis) -> str:
        """Return the cluster's id of a server."""
        return _texts(server.command("CLUSTER", "MYID"))[0]

    def is_ok(self, server: PrivateRedis) -> bool:
        """Whether a server reports that the cluster works."""
        return b"cluster_state:ok" in server.command("CLUSTER", "INFO")

    def remove(self) -> None:
        """Stop all servers, and remove their folders."""
        for server in self.servers:
            server.remove()

    def _is_connected_to_all(self, server: PrivateRedis) -> bool:
        nodes = server.command("CLUSTER", "NODES")
        known = sum(b" connected" in line and b"handshake" not in line for line in nodes.splitlines())
        return bool(known == len(self.servers))


class PrivateSentinel:
    """A primary, a replica, and a sentinel that watches both under the name `main`."""

    def __init__(self) -> None:
        fast = {"repl-diskless-sync-delay": "0"}
        self.primary = PrivateRedis(aof=True, **fast)
        self.replica = PrivateRedis(aof=True, replicaof=f"127.0.0.1 {self.primary.port}", **fast)
        self.sentinel = PrivateRedis(mode="sentinel")

    @property
    def url(self) -> str:
        """The URL of the sentinel and its service."""
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main/0"

    def start(self) -> None:
        """Start all processes, and return when the sentinel has found both servers."""
        self.primary.start()
        self.replica.start()
        self.sentinel.start()
        command = self.sentinel.command
        assert command("SENTINEL", "MONITOR", "main", "127.0.0.1", str(self.primary.port), "1") == b"+OK\r\n"
        options = ("down-after-milliseconds", "500", "failover-timeout", "3000")
        assert command("SENTINEL", "SET", "main", *options) == b"+OK\r\n"
        until(
            lambda: b"num-slaves\r\n$1\r\n1" in command("SENTINEL", "MASTER", "main"), "the sentinel finds the replica"
        )
        until(lambda: b"master_link_status:up" in self.replica.command("INFO", "replication"), "the replica follows")

    def remove(self) -> None:
        """Stop all processes, and remove their folders."""
        for server in (self.sentinel, self.replica, self.primary):
            server.remove()


def until(happened: Callable[[], bool], what: str) -> None:
    """Poll a condition until it is true."""
    end = time.monotonic() + HANG_S
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {HANG_S:.0f} s until {what}")
        time.sleep(0.02)  # the servers send no notification


def _texts(reply: bytes) -> list[str]:
    """Return the bulk strings of a reply."""
    parts = reply.split(b"\r\n")
    return [parts[n + 1].decode() for n, part in enumerate(parts[:-1]) if part.startswith(b"$") and part != b"$-1"]
