"""Connections to a Redis: TLS, a socket file, a database, a Redis user, and refused connections."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import trustme
from dws_redis._scripts import ALL
from services.redis import PrivateRedis, free_port
from support.broker_load import HISTORY, Load, Node, check, two_nodes, wait_for_end
from support.timeouts import HANG_S

from dws_core.plugin import BrokerError, BrokerUnavailable, History, Layout, ReadSpan

LAYOUT = Layout(channel="way", partitions=2)
QUICK = "?probe_s=200ms&dead_s=1s"


async def each_hears_the_other(first: Node, second: Node) -> None:
    """Publish from both nodes, and wait until both received exactly these messages."""
    before = [payload for _, payload in second.received[0]]
    for node, payload in ((first, b"ping"), (second, b"pong" * 10_000)):
        await node.broker.publish(0, "t", payload, history=HISTORY)
    for node in (first, second):
        await node.until(lambda n=node: len(n.received[0]) >= len(before) + 2)  # type: ignore[misc]
        assert [payload for _, payload in node.received[0]] == [*before, b"ping", b"pong" * 10_000]


async def refused_start(url: str) -> str:
    """Start a node that must fail to start, and return the error text."""
    node = Node(url, LAYOUT, 1)
    with pytest.raises(BrokerUnavailable) as error:
        await node.start()
    return str(error.value)


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def with_tls(authority: trustme.CA, folder: Path, *, name: str = "127.0.0.1", clients: str = "no") -> Iterator[str]:
    """Start a Redis with TLS and a certificate for a name. Write `ca.pem` to the folder, and yield the URL."""
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    port = str(free_port())
    files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
    paths = {f"tls-{what}-file": str(folder / file) for what, file in files.items()}
    redis = PrivateRedis(**{"tls-port": port, "tls-auth-clients": clients}, **paths)
    try:
        redis.start()
        yield f"rediss://127.0.0.1:{port}/0{QUICK}"
    finally:
        redis.remove()


@pytest.mark.anyio
async def test_nodes_connect_over_tls_and_reconnect(authority: trustme.CA, tmp_path: Path) -> None:
    with with_tls(authority, tmp_path) as url:
        async with two_nodes(f"{url}&ssl_ca_file={tmp_path}/ca.pem", LAYOUT) as (first, second):
            await each_hears_the_other(first, second)
            for node in (first, second):
                node.broker._node._shard_of(0).commands.abort()  # type: ignore[union-attr]
                node.broker._node._shard_of(0).tail._subscription.abort()  # type: ignore[union-attr]
            for node in (first, second):
                await node.until(lambda n=node: "degraded" in n.states and n.states[-1] == "live")  # type: ignore[misc]
            await each_hears_the_other(first, second)
            assert first.losses == second.losses == []


@pytest.mark.anyio
async def test_client_certificate_is_required_and_sent(authority: trustme.CA, tmp_path: Path) -> None:
    """The server requires a client certificate."""
    mine = authority.issue_cert("node.example")
    mine.private_key_pem.write_to_path(tmp_path / "node.key")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "node.pem")
    with with_tls(authority, tmp_path, clients="yes") as url:
        known = f"{url}&ssl_ca_file={tmp_path}/ca.pem"
        mine_too = f"{known}&ssl_cert_file={tmp_path}/node.pem&ssl_key_file={tmp_path}/node.key"
        async with two_nodes(mine_too, LAYOUT) as (first, second):
            await each_hears_the_other(first, second)
        assert "cannot be reached" in await refused_start(known)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "trusted", "why"),
    [
        ("127.0.0.1", "", "certificate verify failed: (self-signed certificate|unable to get local issuer)"),
        ("another.example", "&ssl_ca_file={}/ca.pem", "certificate is not valid for '127.0.0.1'"),
    ],
    ids=["by an unknown authority", "of another name"],
)
async def test_invalid_certificate_is_rejected(
    authority: trustme.CA, tmp_path: Path, name: str, trusted: str, why: str
) -> None:
    """The option `ssl_verify=no` disables the check."""
    with with_tls(authority, tmp_path, name=name) as url:
        refusal = await refused_start(url + trusted.format(tmp_path))
        assert re.search(why, refusal)
        assert "rediss://127.0.0.1" in refusal
        async with two_nodes(url + "&ssl_verify=no", LAYOUT) as (first, second):
            await each_hears_the_other(first, second)


# -- a socket file, a database


@pytest.mark.anyio
@pytest.mark.parametrize("user", ["", "ann:hush@"])
async def test_nodes_connect_over_socket_file(user: str) -> None:
    redis = PrivateRedis()
    redis.settings["unixsocket"] = f"{redis.folder}/redis.sock"
    url = f"unix://{user}{redis.folder}/redis.sock{QUICK}"
    try:
        assert "redis.sock cannot be reached" in re.sub(r"\?\S*", "", await refused_start(url))
        redis.start()
        redis.command("ACL", "SETUSER", "ann", "on", ">hush", "allcommands", "allkeys", "allchannels")
        if user:
            redis.command("ACL", "SETUSER", "default", "off")
        async with two_nodes(url, LAYOUT) as (first, second):
            await each_hears_the_other(first, second)
    finally:
        redis.remove()


@pytest.mark.anyio
async def test_records_are_stored_in_database_of_url(redis: PrivateRedis) -> None:
    redis.command("FLUSHALL")
    async with two_nodes(redis.url.removesuffix("0") + "3", LAYOUT) as (first, second):
        await each_hears_the_other(first, second)
        assert re.findall(rb"(db\d+):", redis.command("INFO", "keyspace")) == [b"db3"]


# -- a Redis user with few rights


SCRIPTS_USE: Final = {name.upper() for script in ALL for name in re.findall(r"redis\.p?call\('(\w+)'", script.source)}
RIGHTS: Final = sorted(
    SCRIPTS_USE
    | {"CLIENT|SETNAME", "CONFIG|GET", "EVALSHA", "EXISTS", "GET", "HMGET", "INFO", "PUBLISH"}
    | {"SCRIPT|LOAD", "SET", "SUBSCRIBE", "TIME", "UNSUBSCRIBE", "XRANGE", "ZRANGEBYSCORE", "ZSCORE"}
)
"""The rights that `docs/plugins/redis.md` lists for a user."""


def let_ann(redis: PrivateRedis, *commands: str, prefix: str = "dws") -> str:
    """Create a user with these commands for keys and channels of a prefix. Return the URL with its credentials."""
    rules = ["resetchannels", f"~{prefix}:*", f"&{prefix}:*", *(f"+{command.lower()}" for command in commands)]
    assert redis.command("ACL", "SETUSER", "ann", "reset", "on", ">hush", *rules) == b"+OK\r\n"
    redis.command("ACL", "LOG", "RESET")
    redis.command("FLUSHALL")
    return redis.url.replace("//", "//ann:hush@")


def refused(redis: PrivateRedis) -> set[str]:
    """Return the commands, keys and channels that Redis has refused since `let_ann`."""
    found = {name.decode() for name in re.findall(rb"\$6\r\nobject\r\n\$\d+\r\n(.*?)\r\n", redis.command("ACL", "LOG"))}
    return found - {"client|setinfo"}  # optional: the client library sends its name to Redis 7.2 or newer


def hear(redis: PrivateRedis, channel: str, count: int) -> None:
    """Wait for this many messages on a channel."""
    with socket.create_connection(("127.0.0.1", redis.port), timeout=HANG_S) as connection:
        connection.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        heard = b""
        while heard.count(b"$7\r\nmessage\r\n") < count:
            more = connection.recv(65_536)
            assert more, "Redis ended the connection"
            heard += more


async def everything(redis: PrivateRedis, url: str, prefix: str = "dws", *, dead_s: int) -> list[str]:
    """Use every operation of a broker, and return the states of the nodes."""
    options = f"?prefix={prefix}&probe_s=30ms&dead_s={dead_s}s&connect_timeout_s={dead_s}s"
    base = f"{prefix}:{{0:way}}:"
    async with AsyncExitStack() as stack, asyncio.timeout(HANG_S):
        nodes = [Node(url + options, LAYOUT, number) for number in (1, 2)]
        for node in nodes:
            stack.push_async_callback(node.broker.stop, drain_s=0.1)
            await node.start()
        first, second = (node.broker for node in nodes)
        await first.publish(0, "old", b"x", history=History(size=1, ttl_s=0.001))
        while b"old" in redis.command("ZRANGE", base + "i", "0", "-1"):  # until it is forgotten
            await first.publish(0, "t", b"x", history=HISTORY)
        for history in (HISTORY, History.none()):
            await first.publish(0, "t", b"x", history=history)
            await first.publish(0, "t", b"x", history=history, key=f"k{history.size}")
            assert (await second.publish(0, "t", b"x", history=history, key=f"k{history.size}")).duplicate
        head = (await first.heads([0]))[0]
        for topics in (["t"], "t".__eq__):
            found = await first.read(
                ReadSpan(
                    partition=0,
                    since=head.offset - 1,
                    until=head.offset,
                    epoch=head.epoch,
                    topics=topics,
                    limit=9,
                    max_bytes=999,
                )
            )
            assert len(found.records) == 1
        await first.send_control(b"x")
        await asyncio.to_thread(hear, redis, base + "c", 10)  # heartbeats through the log
        for node in nodes:
            await node.broker.set_interest(frozenset())
        await asyncio.to_thread(hear, redis, base + "control", 10)  # and next to the log
        return [state for node in nodes for state in node.states]


@pytest.mark.anyio
@pytest.mark.parametrize("prefix", ["dws", "app"])
async def test_documented_rights_are_sufficient(redis: PrivateRedis, prefix: str) -> None:
    url = let_ann(redis, *RIGHTS, prefix=prefix)
    assert await everything(redis, url, prefix, dead_s=30) == ["live", "live"]
    assert refused(redis) == set()


@pytest.mark.anyio
@pytest.mark.parametrize("right", RIGHTS)
async def test_each_documented_right_is_needed(redis: PrivateRedis, right: str) -> None:
    url = let_ann(redis, *(other for other in RIGHTS if other != right))
    with suppress(BrokerError):
        await everything(redis, url, dead_s=1)
    assert right.lower() in refused(redis)


@pytest.mark.anyio
@pytest.mark.parametrize(("database", "more"), [("0", ()), ("3", ("SELECT",))])
async def test_nonzero_database_needs_one_more_right(redis: PrivateRedis, database: str, more: tuple[str, ...]) -> None:
    url = let_ann(redis, *RIGHTS, *more).removesuffix("0") + database
    async with two_nodes(url, LAYOUT) as (first, second):
        await each_hears_the_other(first, second)
    assert refused(redis) == set()
    if more:
        let_ann(redis, *RIGHTS)
        assert "'select'" in await refused_start(url)


@pytest.mark.anyio
@pytest.mark.parametrize("right", ["EVALSHA", "SCRIPT|LOAD", "CLIENT|SETNAME", "INFO", "SET"])
async def test_missing_right_is_named_without_password(
    redis: PrivateRedis, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    refusal = await refused_start(let_ann(redis, *(other for other in RIGHTS if other != right)))
    assert f"no permissions to run the {right.lower()!r} command" in refusal
    assert "hush" not in refusal + caplog.text


@pytest.mark.anyio
async def test_forbidden_keys_are_explained(redis: PrivateRedis) -> None:
    refusal = await refused_start(let_ann(redis, *RIGHTS, prefix="app"))
    assert "can't access at least one of the keys" in refusal or "no permissions to access" in refusal.lower()
    assert "hush" not in refusal


# -- refused connections


def new_password(redis: PrivateRedis) -> None:
    redis.command("ACL", "SETUSER", "ann", "resetpass", ">another")
    redis.command("CLIENT", "KILL", "USER", "ann")  # a new password alone does not end open connections


def no_user(redis: PrivateRedis) -> None:
    assert redis.command("ACL", "DELUSER", "ann") == b":1\r\n"


def let_ann_again(redis: PrivateRedis) -> None:
    rules = (
        "resetpass",
        "on",
        ">hush",
        "resetchannels",
        "~dws:*",
        "&dws:*",
        *(f"+{right.lower()}" for right in RIGHTS),
    )
    assert redis.command("ACL", "SETUSER", "ann", *rules) == b"+OK\r\n"


@pytest.mark.anyio
@pytest.mark.parametrize("bar", [new_password, no_user])
async def test_temporarily_blocked_user_loses_no_message(
    redis: PrivateRedis, bar: Callable[[PrivateRedis], None]
) -> None:
    async with two_nodes(let_ann(redis, *RIGHTS) + QUICK, LAYOUT) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(100)
            bar(redis)
            for node in (sender, listener):
                await node.until(lambda n=node: n.states[-1] == "degraded")  # type: ignore[misc]
            with pytest.raises(BrokerUnavailable, match="did not accept the publish in time"):
                await sender.broker.publish(0, "t", b"refused", history=HISTORY, deadline_s=0.1)
            let_ann_again(redis)
            await load.wait_for_acks(100)
            load.stopping = True
        await wait_for_end(sender, listener)
        check(load, listener)
        assert (load.unknown, load.refused, listener.losses) == (set(), 0, [])
        for node in (sender, listener):
            await node.until(lambda n=node: n.states[-1] == "live")  # type: ignore[misc]


@pytest.mark.anyio
async def test_connection_limit_error_is_passed_on() -> None:
    redis = PrivateRedis()
    redis.start()
    try:
        with socket.create_connection(("127.0.0.1", redis.port), timeout=HANG_S) as guest:
            guest.sendall(b"CONFIG SET maxclients 1\r\n")
            assert guest.recv(100) == b"+OK\r\n"
            assert "max number of clients reached" in await refused_start(redis.url)
    finally:
        redis.remove()
