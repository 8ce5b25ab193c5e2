"""Reads streams and queues: one channel, with a consumer for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.common import FieldTable

from dws_amqp._link import Link, translated
from dws_core.plugin import Start, WireLost, WireOutOfRange

MAX_SKIP: Final = 1
"""A stream has no record at the offset where a new segment begins."""

_PREFETCH: Final = 100
"""Number of envelopes that the server sends ahead. More of them delay the start and the end of a scan."""

Source: TypeAlias = tuple[str, int | Start | None]
"""Name of a stream and the offset to start from, or name of a queue and None."""

Arrivals: TypeAlias = "asyncio.Queue[tuple[int, DeliveredMessage] | None]"


async def read(
    link: Link, sources: Mapping[int, Source], *, prefetch: int = _PREFETCH
) -> AsyncGenerator[tuple[int, int, bytes], None]:
    """Yield number of the source, offset and data of each record.

    Raises:
        WireLost: The connection or a source was lost.
    """
    arrivals: Arrivals = asyncio.Queue()
    async with translated():
        channel = await link.channel()
        try:
            await link.finish(_consume(channel, sources, arrivals, prefetch))
            unacknowledged = 0
            while (item := await arrivals.get()) is not None:
                number, message = item
                yield number, _offset(message), message.body
                unacknowledged += 1
                if unacknowledged * 2 >= prefetch or arrivals.empty():  # RabbitMQ closes an idle channel that owes some
                    await channel.basic_ack(message.delivery_tag or 0, multiple=True, wait=False)
                    unacknowledged = 0
            raise WireLost("a stream was deleted, or its channel was closed")
        finally:
            link.discard(channel)


async def scan(link: Link, name: str, partition: int, start: int, stop: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield offset and data of the records from `start` to `stop`.

    Raises:
        WireOutOfRange: Records from `start` on were removed. RabbitMQ goes on with later ones without an error.
        WireLost: The connection or the stream was lost.
    """
    last, prefetch = start - 1, max(1, min(_PREFETCH, stop - start + 1))
    async with aclosing(read(link, {partition: (name, start)}, prefetch=prefetch)) as records:
        async for _, offset, data in records:
            if offset > last + 1 + MAX_SKIP:
                raise WireOutOfRange(partition, last + 1)
            last = offset
            if offset <= stop:
                yield offset, data
            if offset >= stop:
                return


async def _consume(channel: aiormq.Channel, sources: Mapping[int, Source], arrivals: Arrivals, prefetch: int) -> None:
    # Neither a closed channel nor a consumer that the server cancels wakes the task that waits for records.
    channel.closing.add_done_callback(lambda _: arrivals.put_nowait(None))
    channel.on_consumer_cancel_callbacks.add(lambda _: arrivals.put_nowait(None))
    await channel.basic_qos(prefetch_count=prefetch)
    for number, (name, start) in sources.items():
        offset = start.value if isinstance(start, Start) else start
        arguments: FieldTable = {} if offset is None else {"x-stream-offset": offset}
        await channel.basic_consume(name, _put(arrivals, number), arguments=arguments)


def _put(arrivals: Arrivals, number: int) -> Callable[[DeliveredMessage], Coroutine[Any, Any, None]]:
    """Return a consumer that never waits, because aiormq starts a task for each message, and only then keeps the order."""

    async def put(message: DeliveredMessage) -> None:
        arrivals.put_nowait((number, message))

    return put


def _offset(message: DeliveredMessage) -> int:
    """Return the offset in a stream. The messages of a queue have none, or one that another program wrote."""
    headers: dict[str, Any] = message.header.properties.headers or {}
    offset = headers.get("x-stream-offset")
    return offset if isinstance(offset, int) else 0
