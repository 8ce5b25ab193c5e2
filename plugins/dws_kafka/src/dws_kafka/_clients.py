"""aiokafka's clients of one wire: opened together, lost together, and closed without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    ConsumerStoppedError,
    KafkaConnectionError,
    KafkaError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from dws_core.plugin import WireLost, WireOutOfRange, WireUnusable

_CLOSE_S: Final = 0.8
_PATIENCE_S: Final = 0.2
_HOPELESS: Final = (SaslAuthenticationFailed, UnsupportedSaslMechanismError, ssl.SSLCertVerificationError)
_ORDERLY: Final = (CloseReason.SHUTDOWN, CloseReason.IDLE_DROP)
FORBIDDEN: Final = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
"""Errors of a user who lacks a permission."""


class Clients:
    """The clients of a wire.

    aiokafka reconnects silently, and also follows a partition to a new leader silently. After that, the partition may
    contain other records. So both end all clients, and the next wire compares the records.

    Args:
        login: Arguments of all clients.
        topic: Topic whose leaders are watched.
        timeout_s: Timeout of a request, in seconds.

    Attributes:
        lost: Done when the clients must not be used any more. Its result is the reason.
    """

    def __init__(self, login: dict[str, Any], topic: str, timeout_s: float) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._options = {**login, "request_timeout_ms": int(timeout_s * 1000), "metadata_max_age_ms": 30_000}
        self._open: dict[Any, asyncio.Task[None]] = {}
        self._topic = topic
        self._leaders: dict[int, int | None] = {}

    async def admin(self) -> AIOKafkaAdminClient:
        """Return a started admin client. The topics need not exist."""
        self.check()
        admin = AIOKafkaAdminClient(client_id="dws-admin", **self._options)
        await self._start(admin)
        return admin

    async def producer(self, **options: Any) -> AIOKafkaProducer:
        """Return a started producer that waits for all in-sync replicas."""
        self.check()
        producer = AIOKafkaProducer(client_id="dws-publish", acks="all", **options, **self._options)
        await self._start(producer)
        await core(producer).set_topics([self._topic])
        return producer

    async def consumer(self, name: str, **options: Any) -> AIOKafkaConsumer:
        """Return a started consumer that belongs to no group and never moves by itself."""
        self.check()
        options = {"auto_offset_reset": "none", "enable_auto_commit": False, **options, **self._options}
        consumer = AIOKafkaConsumer(client_id=f"dws-{name}", **options)
        await self._start(consumer)
        await core(consumer).set_topics([self._topic])
        return consumer

    def lose(self, reason: str) -> None:
        """Note that the clients must not be used any more."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def check(self) -> None:
        """Raise `WireLost` if the clients are lost. Nothing was sent."""
        if self.lost.done():
            raise WireLost(self.lost.result(), sent=False)

    async def abort(self) -> None:
        """Close all clients without waiting for their requests."""
        self.lose("the wire was closed")
        if self._open:
            closing = asyncio.gather(*(_abort(*each) for each in self._open.items()), return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing, _CLOSE_S)

    async def _start(self, client: Any) -> None:
        self._watch(core(client))
        starting = self._open[client] = asyncio.get_running_loop().create_task(client.start(), name="dws kafka start")
        with wire_errors(), _cause() as causes:
            try:
                await asyncio.shield(starting)
            except KafkaConnectionError as error:
                cause = causes[-1] if causes else error
                wire_error = WireUnusable if isinstance(cause, _HOPELESS) else WireLost
                raise wire_error(str(cause) or type(cause).__name__) from error

    def _watch(self, client: AIOKafkaClient) -> None:
        closed: Callable[[Any, CloseReason], None] = client._on_connection_closed

        def on_closed(connection: Any, reason: CloseReason) -> None:
            closed(connection, reason)
            if reason not in _ORDERLY:
                self.lose(f"the connection to {connection.host}:{connection.port} broke")

        client._on_connection_closed = on_closed
        client.cluster.add_listener(self._on_metadata)

    def _on_metadata(self, cluster: Any) -> None:
        """Compare the leaders. aiokafka calls this before it sends a request to a new one."""
        for partition in cluster.partitions_for_topic(self._topic) or ():
            leader = cluster.leader_for_partition(TopicPartition(self._topic, partition))
            if self._leaders.setdefault(partition, leader) != leader:
                self.lose(f"partition {partition} of {self._topic} has another leader")


def core(client: Any) -> AIOKafkaClient:
    """Return the connections of a producer, a consumer or an admin client."""
    found: AIOKafkaClient = client.client if isinstance(client, AIOKafkaProducer) else client._client
    return found


@contextlib.contextmanager
def wire_errors() -> Iterator[None]:
    """Convert the errors of aiokafka to those of a wire."""
    try:
        yield
    except OffsetOutOfRangeError as error:
        ((place, offset),) = error.args[0].items()
        raise WireOutOfRange(place.partition, offset) from error
    except FORBIDDEN as error:
        raise WireLost(f"this user lacks a permission ({error})", sent=False) from error
    except (KafkaError, ConsumerStoppedError, OSError) as error:
        raise WireLost(str(error) or type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise WireLost("aiokafka cancelled a request") from error


@contextlib.contextmanager
def _cause() -> Iterator[list[BaseException]]:
    """Collect the errors that aiokafka only logs. Its exception does not contain why a connection failed."""
    found: list[BaseException] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.extend(  # type: ignore[method-assign]
        arg for arg in record.args or () if isinstance(arg, BaseException)
    )
    logger = logging.getLogger("aiokafka")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


async def _abort(client: Any, starting: asyncio.Task[None]) -> None:
    await asyncio.wait([starting], timeout=_PATIENCE_S)  # aiokafka may leave a connection open if it is cancelled
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    connections = core(client)
    transports = [each._writer.transport for each in connections._conns.values() if each._writer is not None]
    # A task of its own, because aiokafka may raise a `CancelledError` that nobody sent.
    stopping = asyncio.get_running_loop().create_task(_stop(client), name="dws kafka stop")
    await asyncio.wait([stopping], timeout=_PATIENCE_S)
    for transport in transports:
        transport.abort()  # it would wait until a frozen broker has read everything
    await asyncio.gather(stopping, return_exceptions=True)
    await connections.close()


async def _stop(client: Any) -> None:
    if isinstance(client, AIOKafkaAdminClient):
        await client.close()
    elif isinstance(client, AIOKafkaConsumer):
        await client.stop()
    else:
        await _stop_producer(client)


async def _stop_producer(producer: AIOKafkaProducer) -> None:
    """Do what `stop` does, without waiting for batches and for metadata, which may never come."""
    connections = producer.client
    producer._closed = True
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    done.set_result(False)
    connections.force_metadata_update = lambda: done
    if (pending := connections._md_update_fut) is not None and not pending.done():
        pending.set_result(False)
    if (sender := producer._sender.sender_task) is not None:
        sender.cancel()
        await connections.close()
        await asyncio.wait([sender])
