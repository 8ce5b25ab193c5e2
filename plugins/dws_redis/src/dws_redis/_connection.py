"""Connections: redis-py opens them (TLS, users, databases), then the bytes are read and written here, with hiredis."""

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
"""Answers that say that this connection is to the wrong server, or to one that is not what it was."""


def says(refusal: str, words: tuple[str, ...]) -> bool:
    """Say whether a refusal begins with one of these words; one from inside a script of Redis 6 has others before it."""
    return refusal.startswith(words) or any(f": -{word}" in refusal for word in words)


class Lost(Exception):
    """The connection ended before the answer came: nobody knows whether the command was carried out."""


async def open_connection(settings: Settings, address: Address, *, name: str) -> AbstractConnection:
    """Open and greet a connection.

    Raises:
        BrokerUnavailable: Nobody answers in time, or the server is not ready.
        BrokerMisconfigured: The server refuses the user or the password.
    """
    kind: type[AbstractConnection] = SSLConnection if settings.tls else Connection
    place: dict[str, Any]
    if isinstance(address, str):
        kind, place = UnixDomainSocketConnection, {"path": address}
    else:
        place = {"host": address[0], "port": address[1]}
    connection = kind(
        **place,
        **settings.login,
        protocol=2,
        client_name=name,
        socket_timeout=None,  # else redis-py sends by `asyncio.wait_for`, which swallows a cancellation (Python 3.11)
        socket_connect_timeout=settings.options.connect_timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    task = asyncio.current_task()
    cancelled = task.cancelling() if task is not None else 0
    try:
        async with asyncio.timeout(settings.options.connect_timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
    except AuthenticationError as error:
        raise BrokerMisconfigured(
            f"{show(settings, address)} refuses the user or password: {error}.",
            fix="correct the URL, or the user's rights (ACL)",
        ) from error
    except (RedisError, OSError, TimeoutError, UnicodeError) as error:  # UnicodeError: of a name that is none
        await connection.disconnect(nowait=True)
        raise BrokerUnavailable(
            f"{show(settings, address)} cannot be reached: {(str(error) or type(error).__name__).removesuffix('.')}.",
            fix="check that Redis runs there; try `python -m dws_core doctor URL`",
        ) from error
    finally:  # redis-py may swallow a cancellation (seen with 8.1), and succeed or fail instead
        if task is not None and task.cancelling() > cancelled:
            await connection.disconnect(nowait=True)
            raise asyncio.CancelledError
    return connection


def show(settings: Settings, address: Address) -> str:
    """Say in errors where a server is, and how it was found."""
    if settings.kind == "server":
        return settings.shown
    return f"{address[0]}:{address[1]} of {settings.shown}"


class Wire(asyncio.Protocol):
    """An open connection, from the greeting on.

    Args:
        connection: Open; kept, since redis-py closes what it no longer sees.
        settings: How long silence may last.
        on_reply: Takes each answer or push; a refusal as `hiredis.ReplyError`. It says by `heard` which are a sign of life.
    """

    def __init__(self, connection: AbstractConnection, settings: Settings, on_reply: Callable[[Any], None]) -> None:
        self._connection = connection
        self._shown = settings.shown
        self._on_reply = on_reply
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        options = settings.options
        self._watchdog = Watchdog(self._loop.time(), probe_s=options.probe_s, dead_s=options.dead_s)
        writer = connection._writer
        if writer is None:
            raise BrokerUnavailable("the connection to Redis ended at once.")
        self._transport: asyncio.WriteTransport = writer.transport
        self.lost: asyncio.Event = asyncio.Event()
        self._transport.set_protocol(self)

    def write(self, data: bytes) -> None:
        """Write; goes nowhere once lost."""
        if not self.lost.is_set():
            self._transport.write(data)

    def heard(self) -> None:
        """Note a sign of life."""
        self._watchdog.heard(self._loop.time())

    async def watch(self, probe: Callable[[], None]) -> None:
        """Stay until the connection is lost; cut it when it says nothing though it was asked.

        Args:
            probe: Asks for a sign of life.
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
                    logger.warning("%s says nothing; the connection is cut", self._shown)
                    self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    async def close(self) -> None:
        """Cut it and wait for its end."""
        self.abort()
        try:
            await self.lost.wait()
        finally:  # also when this is cancelled
            await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._on_reply(reply)

    def eof_received(self) -> None:
        """Close: a server that says no more has nothing to answer."""

    def connection_lost(self, error: Exception | None) -> None:
        """Take the end."""
        self.lost.set()


class Commands:
    """A connection for commands: what is sent in a tick leaves in one write, answers come in order.

    Args:
        connection: Open.
        settings: How long an answer may take.

    Attributes:
        incarnation: Of the server when its logs were fenced.
    """

    def __init__(self, connection: AbstractConnection, settings: Settings) -> None:
        self.incarnation = ""
        self._waiting: deque[Callable[[Any], None]] = deque()
        self._out: list[bytes] = []
        self._wire = Wire(connection, settings, self._answer)

    @property
    def lost(self) -> asyncio.Event:
        """Set when the connection has ended."""
        return self._wire.lost

    def send(self, command: tuple[Any, ...], on_answer: Callable[[Any], None]) -> None:
        """Send a command; the answer is a value, `hiredis.ReplyError`, or `Lost`."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(hiredis.pack_command(command))
        self._waiting.append(on_answer)

    async def call(self, *command: bytes | str | int) -> Any:
        """Send a command and return the answer.

        Raises:
            BrokerUnavailable: The connection was lost, or the server refused.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost.is_set():
            raise BrokerUnavailable("the connection to Redis is lost.")
        self.send(command, lambda answer: None if future.done() else future.set_result(answer))
        answer = await future
        if isinstance(answer, Lost):
            raise BrokerUnavailable("the connection to Redis was lost while it was asked.")
        if isinstance(answer, hiredis.ReplyError):
            raise BrokerUnavailable(f"Redis refused {command[0]!r}: {answer}.")
        return answer

    def heard(self) -> None:
        """Note that the question of `watch` was answered well."""
        self._wire.heard()

    async def watch(self, ask: Callable[[], None]) -> None:
        """Stay until the connection is lost; cut it when it takes too long until `heard`.

        Args:
            ask: Asks the server how it is. Called each `probe_s`, however much is going on.
        """
        await self._wire.watch(ask)

    def abort(self) -> None:
        """Cut the connection."""
        self._wire.abort()

    async def close(self) -> None:
        """Cut the connection and wait for its end; what was not answered is `Lost`."""
        try:
            await self._wire.close()
        finally:
            self.fail()

    def fail(self) -> None:
        """Tell those that wait that nobody will answer."""
        while self._waiting:
            self._waiting.popleft()(Lost())

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        self._wire.write(data)

    def _answer(self, reply: Any) -> None:
        on_answer = self._waiting.popleft()
        on_answer(reply)
        if isinstance(reply, hiredis.ReplyError) and says(str(reply), WRONG_SERVER):
            self.abort()


def ignore(answer: object) -> None:
    """Take an answer that says nothing new: a lost connection is noticed by itself."""
