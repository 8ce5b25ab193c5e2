"""One connection to RabbitMQ. The quirks of aiormq, the protocol library of aio-pika, are in this module."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import aiormq
from aiormq.connection import TransportFactory
from yarl import URL

from dws_amqp._options import AmqpOptions
from dws_core.plugin import BrokerURL, WireLost, WireUnusable

_HEARTBEAT_S: Final = 10
_CLOSE_S: Final = 0.5
_REFUSALS: Final = (
    aiormq.exceptions.AuthenticationError,
    aiormq.exceptions.ProbableAuthenticationError,
    aiormq.exceptions.ConnectionNotAllowed,
)


_ours: contextvars.ContextVar[bool] = contextvars.ContextVar("dws_amqp_ours", default=False)
"""Whether a task of aiormq works for a connection of this plugin."""

_REPORTED: Final = (
    "Cancelling cause reader exited abnormally",
    "Unexpected connection close from remote",
    "Server connection %r was stuck",
    "Connection %r was blocked",
    "Connection %r was unblocked",
    "Consumer %r cancelled by the broker",
)
"""What aiormq logs about connections that end or are blocked, with tracebacks. The node reports it in one line."""


def _is_news(record: logging.LogRecord) -> bool:
    return not (_ours.get() and str(record.msg).startswith(_REPORTED))


logging.getLogger("aiormq.connection").addFilter(_is_news)
logging.getLogger("aiormq.channel").addFilter(_is_news)


@contextlib.asynccontextmanager
async def translated(*, sent: bool = True) -> AsyncIterator[None]:
    """Turn the failures of aiormq in the block into `WireLost`.

    aiormq cancels waiting calls when it closes a connection, although nobody has cancelled the task.
    """
    try:
        yield
    except (aiormq.AMQPError, OSError, RuntimeError) as error:
        raise WireLost(reason(error), sent=sent) from error
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        raise WireLost("the connection was closed", sent=sent) from error


def reason(error: BaseException) -> str:
    """Return the text of an error. Most errors of aiormq begin with a number."""
    return str(error.args[-1]) if error.args else type(error).__name__


class _Transport(TransportFactory):
    """An open transport. Only its abort ends a connection to a frozen server at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams = reader, writer

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self._streams

    def abort(self) -> None:
        self._streams[1].transport.abort()


@dataclass(frozen=True, slots=True)
class Target:
    """The servers of a URL.

    Attributes:
        url: The URL.
        options: Its options.
    """

    url: BrokerURL
    options: AmqpOptions

    def addresses(self, name: str) -> list[URL]:
        """Return the URLs of the hosts for aiormq, in a random order. RabbitMQ shows the name of the connection."""
        scheme, default = self.url.scheme, 5671 if self.url.scheme == "amqps" else 5672
        hosts = self.url.hosts or (("localhost", None),)
        vhost = self.url.path or "/"
        return [
            URL.build(
                scheme=scheme,
                host=host or "localhost",
                port=port or default,
                user=self.url.username or "guest",
                password=self.url.password or "guest",
                path=vhost if vhost == "/" else f"/{vhost}",
                query={"heartbeat": str(_HEARTBEAT_S), "name": name},
            )
            for host, port in random.sample(hosts, len(hosts))
        ]

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context for `amqps`, else None."""
        if self.url.scheme != "amqps":
            return None
        options = self.options
        context = ssl.create_default_context(cafile=options.ssl_ca_file)
        if not options.ssl_verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if options.ssl_cert_file is not None:
            context.load_cert_chain(options.ssl_cert_file, options.ssl_key_file)
        return context


class Link:
    """An open connection.

    Args:
        amqp: The connection of aiormq.
        transport: Its transport.
    """

    def __init__(self, amqp: aiormq.Connection, transport: _Transport) -> None:
        self.amqp = amqp
        self._transport = transport
        self._closing: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()
        self._context.run(_ours.set, True)

    @classmethod
    async def open(cls, target: Target, name: str) -> Link:
        """Connect to the first host that answers.

        Raises:
            WireLost: None does.
            WireUnusable: A host refuses the user or the virtual host.
        """
        failures: list[str] = []
        for url in target.addresses(name):
            try:
                return await cls._open(url, target)
            except WireLost as error:
                failures.append(f"{url.host}:{url.port} {error.reason}")
        raise WireLost("; ".join(failures), sent=False)

    @classmethod
    async def _open(cls, url: URL, target: Target) -> Link:
        async with translated(sent=False), asyncio.timeout(target.options.connect_timeout_s):
            transport = _Transport(*await asyncio.open_connection(url.host, url.port, ssl=target.context))
            link = cls(amqp := aiormq.Connection(url, transport_factory=transport), transport)
            try:
                await link._spawn(amqp.connect(), "connect")
            except BaseException as error:
                transport.abort()
                if isinstance(error, aiormq.exceptions.InvalidFrameError):  # the text of RabbitMQ is lost in aiormq
                    raise WireUnusable(f"{url.host}:{url.port} refuses the virtual host {amqp.vhost!r}") from error
                if isinstance(error, _REFUSALS):
                    raise WireUnusable(f"{url.host}:{url.port} refuses the connection: {reason(error)}") from error
                raise
        return link

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self.amqp.is_closed

    @property
    def is_blocked(self) -> bool:
        """Whether the server reads nothing from this connection because of an alarm.

        `ready()` is pending exactly then, and aiormq has no other public sign of it.
        """
        ready = self.amqp.ready()
        try:
            ready.send(None)
        except StopIteration:
            return False
        ready.close()
        return True

    async def channel(self, *, confirms: bool = False) -> aiormq.Channel:
        """Open a channel. With `confirms`, publishing waits for the confirmation, and fails if no queue receives."""
        opening = self._spawn(self.amqp.channel(publisher_confirms=confirms, on_return_raises=True), "channel")
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._discard_opened)
            raise

    async def finish(self, call: Coroutine[Any, Any, None]) -> None:
        """Wait for a call, which continues if the waiting task is cancelled, because aiormq would break the channel."""
        await asyncio.shield(self._spawn(call, "call"))

    def discard(self, channel: aiormq.Channel) -> None:
        """Close a channel in the background, because the server first sends all messages that it has credit for."""
        self._spawn(_ignoring_failures(channel.close()), "channel")

    def _discard_opened(self, opening: asyncio.Task[Any]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.discard(opening.result())

    def _spawn(self, call: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(call, name=f"dws amqp {name}", context=self._context)
        self._closing.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._closing.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else retrieves it if the waiting task was cancelled

    async def close(self) -> None:
        """Abort the connection. Without its reader, aiormq does not report the abort as an error."""
        self.amqp._reader_task.cancel()
        self._transport.abort()
        closing = self.amqp.close(ConnectionError("the connection was closed"))
        tasks = {asyncio.get_running_loop().create_task(_ignoring_failures(closing)), *self._closing}
        _, hanging = await asyncio.wait(tasks, timeout=_CLOSE_S)
        for task in hanging:
            task.cancel()


async def _ignoring_failures(closing: Awaitable[None]) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await closing
