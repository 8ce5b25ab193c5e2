"""Features of this broker only: its URLs, its format, and its requirements on the server."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path

import pytest
from dws_redis import RedisBroker
from dws_redis._connection import open_connection
from dws_redis._fence import _check_server
from dws_redis._settings import RedisOptions, Settings
from services.redis import PrivateRedis
from support.broker_load import IgnoringSink
from support.timeouts import HANG_S

from dws_core import InvalidBrokerURL, create_broker
from dws_core.plugin import (
    BrokerMisconfigured,
    BrokerUnavailable,
    BrokerURL,
    ConfigurationError,
    History,
    Layout,
    ReadSpan,
    Record,
)


async def started(url: str, layout: Layout) -> RedisBroker:
    broker = RedisBroker.from_url(BrokerURL.parse(url))
    await broker.start(node=b"12345678", layout=layout, sink=IgnoringSink())  # type: ignore[arg-type]
    return broker


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://a,b/0", "several hosts"),
        ("redis://a/zero", "database number"),
        ("redis://a/0?partitions=0", "out of range"),
        ("redis://a/0?probe_s=5s", "out of range"),
        ("redis://a/0?trust_restart=perhaps", "always, aof, never"),
        ("redis://:hush@a/0?nonsense=1", "max_payload_bytes"),
        ("redis://:hush@a/0?partitions=4097", "partitions from 1 to 4096"),
        ("redis+cluster://:hush@a/?prefix=%7Bapp", "prefix without"),
        ("redis+cluster://:hush@a/?prefix=app}", "prefix without"),
        ("redis://:hush@a/0?prefix=\udc80", "cannot be encoded"),
        ("redis://:hush@a/0?key_ttl_s=0.9ms", "key_ttl_s >= 1ms"),
        ("redis://:hush@a/0?connect_timeout_s=0", "connect_timeout_s > 0"),
        ("redis://:hush@a/0?max_payload_bytes=0", "max_payload_bytes >= 1"),
        ("redis://:hush@a/0?max_queue_bytes=0", "max_queue_bytes >= 1"),
        ("redis://:hush@a?database=3", "end the path of the URL with /3"),
        ("redis+sentinel://:hush@a/main?database=3", "end the path of the URL with /3"),
        ("redis+cluster://:hush@a?database=3", "only database 0"),
        ("unix:///redis.sock?database=-1", "database >= 0"),
        ("unix:///redis.sock?database=three", "an integer"),
        ("rediss://:hush@a/0?ssl_ca_file=/nowhere/ca.pem", "'ssl_ca_file'.*'/nowhere/ca.pem'"),
        ("rediss://:hush@a/0?ssl_cert_file=/nowhere/node.pem", "'ssl_cert_file'.*'/nowhere/node.pem'"),
        ("rediss://:hush@a/0?ssl_key_file=/", "'ssl_key_file'.*'/'"),
    ],
)
def test_invalid_url_is_rejected_without_password(url: str, why: str) -> None:
    """The error has a fix."""
    with pytest.raises(InvalidBrokerURL, match=why) as error:
        create_broker(url)
    assert "Fix" in str(error.value)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://a?partitions=4096&key_ttl_s=1ms&connect_timeout_s=1ms&max_payload_bytes=1&max_queue_bytes=1",
        f"rediss://a?ssl_ca_file={__file__}&ssl_cert_file={__file__}&ssl_key_file={__file__}",
        "redis://a?prefix=",
        "redis://a?prefix=räume: ",
        "unix:///redis.sock?database=0",
    ],
)
def test_url_limits_are_inclusive(url: str) -> None:
    Settings.read(BrokerURL.parse(url))


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("redis://a", "dws"),
        ("redis://a/0?prefix=app", "app"),
        ("redis://a/3", "dws:3"),
        ("redis+sentinel://a/main/3?prefix=app", "app:3"),
        ("unix:///redis.sock?database=3", "dws:3"),
        ("redis+cluster://a", "dws"),
    ],
)
def test_names_include_database(url: str, prefix: str) -> None:
    assert Settings.read(BrokerURL.parse(url)).prefix == prefix


@pytest.mark.anyio
async def test_databases_are_isolated(redis: PrivateRedis) -> None:
    received: dict[str, list[bytes]] = {"0": [], "3": []}
    both = asyncio.Event()

    class Ears(IgnoringSink):
        def __init__(self, database: str) -> None:
            self.mine = received[database]

        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Record]) -> None:
            self.mine += [record.payload for record in records]
            if all(b"last" in mine for mine in received.values()):
                both.set()

        def on_control(self, sender: bytes, payload: bytes) -> None:
            self.mine.append(payload)

    async with AsyncExitStack() as stack, asyncio.timeout(HANG_S):
        brokers = {}
        for database in received:
            broker = brokers[database] = RedisBroker.from_url(BrokerURL.parse(redis.url.removesuffix("0") + database))
            layout = Layout(channel="two", partitions=1)
            stack.push_async_callback(broker.stop, drain_s=0.1)
            await broker.start(node=b"12345678", layout=layout, sink=Ears(database))  # type: ignore[arg-type]
            await broker.set_interest(frozenset({0}))
        for database, broker in brokers.items():
            await broker.send_control(b"control " + database.encode())
            for text in (b"message " + database.encode(), b"last"):
                await broker.publish(0, "t", text, history=History.none())
        await both.wait()
    for database, mine in received.items():
        assert sorted(mine) == [b"control " + database.encode(), b"last", b"message " + database.encode()]


@pytest.mark.anyio
async def test_socket_file_url_selects_database() -> None:
    redis = PrivateRedis()
    redis.settings["unixsocket"] = f"{redis.folder}/redis.sock"
    redis.start()
    try:
        broker = await started(f"unix://{redis.folder}/redis.sock?database=3", Layout(channel="c", partitions=1))
        await broker.stop()
        assert re.findall(rb"(db\d+):", redis.command("INFO", "keyspace")) == [b"db3"]
    finally:
        redis.remove()


def test_every_option_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/plugins/redis.md").read_text()
    table = page.partition("## Settings")[2].partition("\n\nRedis")[0]
    in_first_column = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(in_first_column))) == sorted(f.name for f in fields(RedisOptions))


def test_original_name_is_importable() -> None:
    from dws_core import RedisBroker as Original

    assert Original is RedisBroker


@pytest.mark.anyio
async def test_wrong_password_is_reported_without_it(redis: PrivateRedis) -> None:
    with pytest.raises(BrokerMisconfigured) as error:
        await started(redis.url.replace("//", "//ann:hush@"), Layout(channel="c", partitions=1))
    assert "hush" not in str(error.value)


@pytest.mark.anyio
async def test_redis_without_persistence_logs_warning(caplog: pytest.LogCaptureFixture) -> None:
    server = PrivateRedis(maxmemory="100mb", **{"maxmemory-policy": "allkeys-lru"})
    server.start()
    try:
        with caplog.at_level(logging.WARNING, "dws.redis"):
            await (await started(server.url, Layout(channel="c", partitions=1))).stop()
    finally:
        server.remove()
    assert "append-only" in caplog.text
    assert "noeviction" in caplog.text


@pytest.mark.anyio
async def test_expired_topics_are_deleted(redis: PrivateRedis) -> None:
    layout = Layout(channel="expiry", partitions=1)
    broker = await started(redis.url + "?partitions=1", layout)
    try:
        short, long = History(size=5, ttl_s=0.02), History(size=5, ttl_s=600)
        for number in range(200):
            await broker.publish(0, f"short/{number}", b"x", history=short)
        async with asyncio.timeout(HANG_S):
            while int(redis.command("ZCARD", "dws:{0:expiry}:i")[1:].split(b"\r\n")[0]) > 1:
                await broker.publish(0, "long", b"x", history=long)
        keys = redis.command("KEYS", "dws:{0:expiry}:h:*")
        assert b"short" not in keys
        # A client that was away since then gets a gap, and not an empty result.
        head = (await broker.heads([0]))[0]
        result = await broker.read(
            ReadSpan(
                partition=0, since=1, until=head.offset, epoch=head.epoch, topics=["short/0"], limit=10, max_bytes=1000
            )
        )
        assert result.gap == "trimmed"
    finally:
        await broker.stop()


@pytest.mark.anyio
async def test_node_without_interest_keeps_its_connection(redis: PrivateRedis) -> None:
    states: list[str] = []

    class States(IgnoringSink):
        def on_state(self, state: str, detail: str) -> None:
            states.append(state)

    broker = RedisBroker.from_url(BrokerURL.parse(redis.url + "?partitions=1&probe_s=20ms&dead_s=2s"))
    await broker.start(node=b"12345678", layout=Layout(channel="quiet", partitions=1), sink=States())  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(HANG_S):
            listening = asyncio.to_thread(_hear, redis, "dws:{0:quiet}:control", 120)  # longer than `dead_s`
            await listening
        assert states == ["live"]
    finally:
        await broker.stop()


@pytest.mark.anyio
async def test_idle_node_stays_within_promised_rate(redis: PrivateRedis) -> None:
    """Measure time by the node's heartbeats, one for each `probe_s`, instead of by the clock."""
    broker = RedisBroker.from_url(BrokerURL.parse(redis.url + "?probe_s=50ms&dead_s=30s"))  # instead of 1 s
    await broker.start(node=b"12345678", layout=Layout(channel="idle", partitions=8), sink=IgnoringSink())  # type: ignore[arg-type]
    try:
        await broker.set_interest(frozenset(range(8)))
        redis.command("CONFIG", "RESETSTAT")
        await asyncio.to_thread(_hear, redis, "dws:{3:idle}:c", 40)
        stats = redis.command("INFO", "commandstats").decode()
        asked = sum(int(calls) for calls in re.findall(r"cmdstat_(?:evalsha|info|publish):calls=(\d+)", stats))
        said_by_scripts = int(re.findall(r"cmdstat_publish:calls=(\d+)", stats)[0])
        assert asked - said_by_scripts <= RedisBroker.capabilities.idle_ops_per_s * 40 + 4
    finally:
        await broker.stop()


def _hear(redis: PrivateRedis, channel: str, count: int) -> None:
    """Wait for this many messages on a channel."""
    with socket.create_connection(("127.0.0.1", redis.port), timeout=HANG_S) as connection:
        connection.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        received = b""
        while received.count(b"message") < count:
            more = connection.recv(65_536)
            assert more, "Redis ended the connection"
            received += more


@pytest.mark.parametrize("channel", ["a}:{b", "a{", "}", "a\ud800"])
@pytest.mark.anyio
async def test_ambiguous_channel_is_rejected(channel: str) -> None:
    with pytest.raises(ConfigurationError, match="Fix:"):
        await started("redis://127.0.0.1:1", Layout(channel=channel))


@pytest.mark.parametrize(
    ("info", "error"),
    [
        # While Redis loads, it reports no append-only file. A fence based on this would report a false loss.
        ({"redis_version": "7.0.15", "loading": "1", "aof_enabled": "0"}, BrokerUnavailable),
        ({"redis_version": "7.0.15", "role": "slave"}, BrokerUnavailable),
        ({"redis_version": "6.0.9"}, BrokerMisconfigured),
        ({"redis_version": "7.0.15", "role": "master"}, BrokerMisconfigured),  # without its process id
    ],
)
def test_unwritable_redis_is_not_fenced(info: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error, match="Fix"):
        _check_server(info)


@pytest.mark.anyio
async def test_loading_redis_keeps_its_epoch() -> None:
    redis = PrivateRedis(aof=True, **{"key-load-delay": "2000", "loading-process-events-interval-bytes": "1024"})
    redis.start()
    url = redis.url + "?partitions=1"
    layout = Layout(channel="loading", partitions=1)
    try:
        broker = await started(url, layout)
        first = await broker.publish(0, "t", b"x", history=History())
        for number in range(500):
            broker.publish(0, f"t/{number}", b"x" * 500, history=History())
        await broker.stop()
        redis.kill()
        redis.launch()  # it answers only after it has loaded its data, some seconds later
        async with asyncio.timeout(HANG_S):
            while True:
                try:
                    broker = await started(url, layout)
                except BrokerUnavailable as error:
                    refusal = str(error)
                    continue
                break
        assert refusal
        assert (await broker.heads([0]))[0].epoch == first.epoch
        await broker.stop()
    finally:
        redis.remove()


@pytest.mark.anyio
async def test_cancelled_connect_ends_despite_client_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attempt that continued would keep its connection to a replaced server forever."""
    trying = asyncio.Event()

    async def swallow(connection: object) -> None:
        trying.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("refused") from None

    monkeypatch.setattr("redis.asyncio.connection.Connection.connect", swallow)
    settings = Settings.read(BrokerURL.parse("redis://127.0.0.1:1"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(open_connection(settings, settings.hosts[0], name="t"))
        await trying.wait()
        task.cancel()
    assert task.cancelled()


@pytest.mark.anyio
async def test_cancelled_connect_ends_during_greeting() -> None:
    """The attempt must not continue until its own timeout."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings.read(BrokerURL.parse(f"redis://127.0.0.1:{port}?connect_timeout_s=500s"))
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        task = group.create_task(open_connection(settings, settings.hosts[0], name=""))
        await asked.wait()
        task.cancel()
        await asyncio.wait({task})
        await left.wait()
    server.close()
    assert task.cancelled()
