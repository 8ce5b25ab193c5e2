"""Sentinels: finding the new primary, querying them concurrently, and verifying their replies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import pytest
from dws_redis import RedisBroker
from dws_redis._topology import _reason_to_distrust
from services.redis import PrivateRedis, free_port
from services.redis_cluster import PrivateSentinel, until
from support.broker_load import HISTORY, IgnoringSink, Load, check_after_last_gap, two_nodes, wait_for_end
from support.timeouts import HANG_S

from dws_core.plugin import BrokerError, BrokerMisconfigured, BrokerUnavailable, BrokerURL, GapReason, Layout

LAYOUT = Layout(channel="sentinel", partitions=3)


@pytest.mark.anyio
async def test_sentinels_lead_to_new_primary() -> None:
    servers = PrivateSentinel()
    servers.start()
    try:
        async with two_nodes(servers.url + "?probe_s=200ms&dead_s=1s", LAYOUT) as (sender, listener):
            load = Load(sender)
            async with asyncio.TaskGroup() as group:
                for partition in (0, 1):
                    group.create_task(load.run(partition))
                await load.wait_for_acks(200)
                servers.primary.kill()
                await listener.until(lambda: bool(listener.losses))
                await load.wait_for_acks(200)
                load.stopping = True
            await wait_for_end(sender, listener)
            assert set(listener.losses) == {GapReason.EPOCH}
            check_after_last_gap(load, listener)
            receipt = await sender.broker.publish(0, "t", b"after", history=HISTORY)
            servers.primary.start()  # it restarts and follows the new primary
            follows = lambda: b"role:slave" in servers.primary.command("INFO", "replication")  # noqa: E731 -- for until
            await asyncio.to_thread(until, follows, "the old one follows")
            again = await sender.broker.publish(0, "t", b"after that", history=HISTORY)
            assert again.epoch == receipt.epoch
    finally:
        servers.remove()


@contextmanager
def watched(redis: PrivateRedis, *, sentinels: int = 2, quorum: int = 1) -> Iterator[list[PrivateRedis]]:
    """Start sentinels that watch a Redis under the name `main`."""
    watchers = [PrivateRedis(mode="sentinel") for _ in range(sentinels)]
    try:
        for watcher in watchers:
            watcher.settings["sentinel monitor main"] = f"127.0.0.1 {redis.port} {quorum}"
            watcher.settings["sentinel down-after-milliseconds main"] = "100"
            watcher.start()
        yield watchers
    finally:
        for watcher in watchers:
            watcher.remove()


def of_sentinels(ports: list[int], service: str = "main", options: str = "", user: str = "") -> str:
    return f"redis+sentinel://{user}{','.join(f'127.0.0.1:{port}' for port in ports)}/{service}/0?{options}"


async def start(url: str) -> None:
    """Start a broker and stop it."""
    broker = RedisBroker.from_url(BrokerURL.parse(url))
    async with asyncio.timeout(HANG_S):
        await broker.start(node=b"12345678", layout=LAYOUT, sink=IgnoringSink())  # type: ignore[arg-type]
        await broker.stop()


async def refused(url: str, kind: type[BrokerError] = BrokerUnavailable) -> str:
    """Start a broker that must fail to start, and return the error text."""
    with pytest.raises(kind) as error:
        await start(url)
    assert type(error.value) is kind
    assert "Fix: " in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


def guests(sentinel: PrivateRedis) -> list[bytes]:
    """Return the connections to a sentinel, except those of other sentinels, which have names."""
    lines = sentinel.command("CLIENT", "LIST").splitlines()
    return [line for line in lines if b" name= " in line and b" cmd=client" not in line]


@pytest.mark.anyio
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("away", ["frozen", "refused"])
async def test_unavailable_sentinel_does_not_delay_start(redis: PrivateRedis, place: int, away: str) -> None:
    with watched(redis) as sentinels:
        ports = [sentinel.port for sentinel in sentinels]
        if away == "frozen":
            sentinels[place].freeze()
        else:
            ports[place] = free_port()
        await start(of_sentinels(ports, options="connect_timeout_s=500s"))  # longer than HANG_S
        sentinels[place].thaw()
        for sentinel in sentinels:
            await asyncio.to_thread(until, lambda s=sentinel: not guests(s), "every connection is closed")


class Mute:
    """Servers that accept connections and send nothing, like frozen ones.

    Args:
        greets: Whether to send the greeting before freezing.
    """

    def __init__(self, *, greets: bool = False) -> None:
        self.greets = greets
        self.asked: list[int] = []
        self.changed = asyncio.Event()
        self.left = 0

    @asynccontextmanager
    async def ports(self, number: int) -> AsyncIterator[list[int]]:
        servers = [await asyncio.start_server(self._take, "127.0.0.1", 0) for _ in range(number)]
        try:
            yield [server.sockets[0].getsockname()[1] for server in servers]
        finally:
            for server in servers:
                server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1)
        self.asked.append(writer.get_extra_info("sockname")[1])
        self.changed.set()
        try:
            while data:  # until the other side closes
                data = await reader.read(65_536)
                if self.greets:
                    writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
        finally:
            writer.close()
            self.left += 1
            self.changed.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not happened():
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.anyio
async def test_sentinels_are_queried_concurrently() -> None:
    """A cancelled start closes all connections."""
    mute = Mute()
    async with mute.ports(3) as ports, asyncio.TaskGroup() as group:
        task = group.create_task(start(of_sentinels(ports, options="connect_timeout_s=500s")))
        await mute.until(lambda: len(mute.asked) == 3 or mute.left > 0)
        assert mute.left == 0, "none has been given up, and all are asked"
        task.cancel()
        await mute.until(lambda: mute.left == 3)
    assert sorted(mute.asked) == sorted(ports)


@pytest.mark.anyio
@pytest.mark.parametrize("greets", [False, True])
async def test_silent_sentinels_are_named_in_error(greets: bool) -> None:
    """Each is queried once."""
    mute = Mute(greets=greets)
    async with mute.ports(3) as ports:
        refusal = await refused(of_sentinels(ports, options="connect_timeout_s=1s"))
        await mute.until(lambda: mute.left == 3)
    assert sorted(mute.asked) == sorted(ports)
    for port in ports:
        assert re.search(rf"127.0.0.1:{port} (does not reply|cannot be reached)", refusal)


@pytest.mark.anyio
async def test_unknown_service_error_lists_each_reply(redis: PrivateRedis) -> None:
    with watched(redis) as (sentinel, other):
        ports = [sentinel.port, other.port, free_port()]
        refusal = await refused(of_sentinels(ports, "another", user="ann:hush@"))
        assert "'another'" in refusal
        assert refusal.count("No such master") == 2
        for port in ports:
            assert f"127.0.0.1:{port}" in refusal.partition("working server for ")[2]
        assert "hush" not in refusal


@pytest.mark.anyio
async def test_sentinel_user_needs_one_right(redis: PrivateRedis) -> None:
    """Its password is never shown."""
    with watched(redis, sentinels=1) as (sentinel,):
        sentinel.command("ACL", "SETUSER", "ann", "on", ">hush", "+sentinel|master")
        sentinel.command("ACL", "SETUSER", "default", "off")
        ports, ann = [sentinel.port], "sentinel_username=ann&sentinel_password="
        await start(of_sentinels(ports, options=ann + "hush"))
        for wrong in ("hushhush", ""):
            refusal = await refused(of_sentinels(ports, options=ann + wrong), BrokerMisconfigured)
            assert f"127.0.0.1:{sentinel.port} refuses the user or password" in refusal
            assert "hush" not in refusal
        assert "NOAUTH" in await refused(of_sentinels(ports))
        await start(of_sentinels([free_port(), *ports, free_port()], options=ann + "hush"))


@pytest.mark.anyio
async def test_sentinel_that_reports_server_down_is_rejected() -> None:
    redis = PrivateRedis()
    redis.start()
    try:
        with watched(redis, sentinels=1) as (sentinel,):
            redis.kill()
            is_down = lambda: b"s_down" in sentinel.command("SENTINEL", "MASTER", "main")  # noqa: E731 -- for until
            await asyncio.to_thread(until, is_down, "the sentinel notices")
            assert "reports that the server is down" in await refused(of_sentinels([sentinel.port]))
    finally:
        redis.remove()


@pytest.mark.anyio
async def test_sentinel_without_quorum_is_rejected(redis: PrivateRedis) -> None:
    """A restarted sentinel may return an outdated server."""
    with watched(redis, sentinels=1, quorum=2) as (sentinel,):
        assert "enough other sentinels" in await refused(of_sentinels([sentinel.port]))


WORKS: Final = {b"flags": b"master", b"num-other-sentinels": b"2", b"quorum": b"2"}


@pytest.mark.parametrize(
    ("told", "doubt"),
    [
        ({}, ""),
        ({b"flags": b"master,disconnected,failover_in_progress"}, ""),
        ({b"flags": b"slave"}, "primary"),
        ({b"flags": b"s_down,master,disconnected"}, "down"),
        ({b"flags": b"master,o_down"}, "down"),
        ({b"num-other-sentinels": b"1"}, ""),
        ({b"num-other-sentinels": b"0"}, "quorum"),
    ],
)
def test_doubtful_sentinel_reply_is_rejected(told: dict[bytes, bytes], doubt: str) -> None:
    found = _reason_to_distrust(WORKS | told)
    assert doubt in found
    assert bool(found) == bool(doubt)
