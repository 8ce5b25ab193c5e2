"""Connections. redis-py opens them (TLS, users, databases). This module then reads and writes with hiredis."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable, Watchdog
from dws_redis._settings import Address, Settings

logger = logging.getLogger("dws.redis")

WRONG_SERVER: Final = (
    "NOSCRIPT", "NOFENCE", "READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN",
)  # fmt: skip
"""Error codes of a server that is the wrong one, or is no longer in the state in which it was prepared."""


def has_error_code(error: str, codes: tuple[str, ...]) -> bool:
    """Return whether an error has one of these codes. Redis 6 puts other text before a code that a script raises."""
    return error.startswith(codes) or any(f": -{code}" in error for code in codes)


class Lost(Exception):
    """The connection was lost before the reply arrived. Whether the command was executed is unknown."""


async def open_connection(settings: Settings, address: Address, *, name: str) -> AbstractConnection:
    """Open a connection and log in.

    Raises:
        BrokerUnavailable: The server does not reply in time, or is not ready.
        BrokerMisconfigured: The server refuses the user or the password.
    """
    connection = _new_connection(settings, address, name)
    task = asyncio.current_task()
    cancelled = task.cancelling() if task is not None else 0
    try:
        async with asyncio.timeout(settings.options.connect_timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
    except AuthenticationError as error:
        raise BrokerMisconfigured(
            f"{describe_server(settings, address)} refuses the user or password: {error}.",
            fix="correct the URL, or the rights of the user (ACL)",
        ) from error
    except (RedisError, OSError, TimeoutError, UnicodeError) as error:  # UnicodeError: the host name is invalid
        await connection.disconnect(nowait=True)
        reason = (str(error) or type(error).__name__).removesuffix(".")
        raise BrokerUnavailable(
            f"{describe_server(settings, address)} cannot be reached: {reason}.",
            fix="check that Redis runs there, and try `python -m dws_core doctor URL`",
        ) from error
    finally:  # redis-py may swallow a cancellation (seen with 8.1) and return or raise another error instead
        if task is not None and task.cancelling() > cancelled:
            await connection.disconnect(nowait=True)
            raise asyncio.CancelledError
    return connection


def _new_connection(settings: Settings, address: Address, name: str) -> AbstractConnection:
    kind: type[AbstractConnection] = SSLConnection if settings.tls else Connection
    location: dict[str, Any]
    if isinstance(address, str):
        kind, location = UnixDomainSocketConnection, {"path": address}
    else:
        location = {"host": address[0], "port": address[1]}
    return kind(
        **location,
        **settings.login,
        protocol=2,
        client_name=name,
        socket_timeout=None,  # otherwise redis-py sends by `asyncio.wait_for`, which swallows cancellations in 3.11
        socket_connect_timeout=settings.options.connect_timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


def describe_server(settings: Settings, address: Address) -> str:
    """Return the location of a server and the URL that led to it, for error messages."""
    if settings.kind == "server":
        return settings.masked_url
    return f"{address[0]}:{address[1]} of {settings.masked_url}"


class Wire(asyncio.Protocol):
    """An open connection after the login.

    Args:
        connection: An open connection. It is kept, because redis-py closes a connection that is garbage-collected.
        settings: Timeouts of a silent connection.
        on_reply: Called with each reply or push, or with a `hiredis.ReplyError`. It calls `confirm_alive` for those
            that prove that the connection works.
    """

    def __init__(self, connection: AbstractConnection, settings: Settings, on_reply: Callable[[Any], None]) -> None:
        self._connection = connection
        self._masked_url = settings.masked_url
        self._on_reply = on_reply
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        options = settings.options
        self._watchdog = Watchdog(self._loop.time(), probe_s=options.probe_s, dead_s=options.dead_s)
        writer = connection._writer
        if writer is None:
            raise BrokerUnavailable("the connection to Redis ended immediately.")
        self._transport: asyncio.WriteTransport = writer.transport
        self.lost: asyncio.Event = asyncio.Event()
        self._transport.set_protocol(self)

    def write(self, data: bytes) -> None:
        """Write data. Does nothing once the connection is lost."""
        if not self.lost.is_set():
            self._transport.write(data)

    def confirm_alive(self) -> None:
        """Restart the timeout of a silent connection."""
        self._watchdog.heard(self._loop.time())

    async def watch(self, probe: Callable[[], None]) -> None:
        """Return when the connection is lost. Cut it if a probe stays without a reply.

        Args:
            probe: Sends a request whose reply leads to `confirm_alive`.
        """
        while not self.lost.is_set():
            try:
                async with asyncio.timeout_at(self._watchdog.look_at):
                    await self.lost.wait()
            except TimeoutError:
                verdict = self._watchdog.check(self._loop.time())
                if verdict == "probe":
                    probe()
                elif verdict == "dead":
                    logger.warning("%s does not reply, so the connection is cut and opened again", self._masked_url)
                    self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    async def close(self) -> None:
        """Cut the connection and wait for its end."""
        self.abort()
        try:
            await self.lost.wait()
        finally:  # also if this call is cancelled
            await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes and call `on_reply` for each reply."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._on_reply(reply)

    def eof_received(self) -> None:
        """Let the transport close: a server that sends nothing more cannot reply."""

    def connection_lost(self, error: Exception | None) -> None:
        """Set `lost`."""
        self.lost.set()


class Commands:
    """A connection for commands. All commands of a tick are sent in one write. Replies arrive in order.

    Args:
        connection: An open connection.
        settings: Timeouts of a silent connection.

    Attributes:
        incarnation: Identity of the server process and its data when the logs were fenced. Empty before that.
    """

    def __init__(self, connection: AbstractConnection, settings: Settings) -> None:
        self.incarnation = ""
        self._callbacks: deque[Callable[[Any], None]] = deque()
        self._unsent: list[bytes] = []
        self._wire = Wire(connection, settings, self._on_reply)

    @property
    def lost(self) -> asyncio.Event:
        """Set once the connection has ended."""
        return self._wire.lost

    def send(self, command: tuple[Any, ...], on_reply: Callable[[Any], None]) -> None:
        """Send a command in the next tick. `on_reply` receives a value, a `hiredis.ReplyError` or `Lost`."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(command))
        self._callbacks.append(on_reply)

    async def call(self, *command: bytes | str | int) -> Any:
        """Send a command and return the reply.

        Raises:
            BrokerUnavailable: The connection was lost, or the server replied with an error.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost.is_set():
            raise BrokerUnavailable("the connection to Redis is lost.")
        self.send(command, lambda reply: None if future.done() else future.set_result(reply))
        reply = await future
        if isinstance(reply, Lost):
            raise BrokerUnavailable(f"the connection to Redis was lost before the reply to {command[0]!r} arrived.")
        if isinstance(reply, hiredis.ReplyError):
            raise BrokerUnavailable(f"Redis refused {command[0]!r}: {reply}.")
        return reply

    def confirm_alive(self) -> None:
        """Restart the timeout, because the server's reply to a probe was good."""
        self._wire.confirm_alive()

    async def watch(self, probe: Callable[[], None]) -> None:
        """Return when the connection is lost. Cut it if `confirm_alive` is not called in time after a probe.

        Args:
            probe: Requests the state of the server. Called every `probe_s` seconds, even on a busy connection.
        """
        await self._wire.watch(probe)

    def abort(self) -> None:
        """Cut the connection."""
        self._wire.abort()

    async def close(self) -> None:
        """Cut the connection and wait for its end. Commands without a reply receive `Lost`."""
        try:
            await self._wire.close()
        finally:
            self._fail_pending()

    def _fail_pending(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()(Lost())

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        self._wire.write(data)

    def _on_reply(self, reply: Any) -> None:
        on_reply = self._callbacks.popleft()
        on_reply(reply)
        if isinstance(reply, hiredis.ReplyError) and has_error_code(str(reply), WRONG_SERVER):
            self.abort()


def ignore_reply(reply: object) -> None:
    """Ignore the reply of a command. A lost connection is noticed independently."""
