"""What an operator does to a Kafka: delete topics and records, look up leaders, take permissions away."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from support.timeouts import HANG_S

_TOPIC: Final = 2
_LITERAL: Final = 3
_EXISTS: Final = 36
_ALL, READ, WRITE, DESCRIBE_CONFIGS = 2, 3, 4, 10
_DENY, _ALLOW = 2, 3
_CREATE_ACLS, _DELETE_ACLS = 30, 31


@asynccontextmanager
async def admin(address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client."""
    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def delete_topic(address: str, topic: str) -> None:
    """Delete a topic, and return when no broker knows it."""
    async with admin(address) as client:
        response = await client.delete_topics([topic])
        assert response.topic_error_codes[0][1] == 0, response
        async with asyncio.timeout(HANG_S):
            while topic in await client.list_topics():  # noqa: ASYNC110 -- Kafka sends no notification
                await asyncio.sleep(0.01)


async def create_topic(address: str, topic: str, partitions: int, replicas: int = 1, **settings: str) -> None:
    """Create a topic. Dots in the names of settings are written as underscores."""
    configs = {name.replace("_", "."): value for name, value in settings.items()}
    async with admin(address) as client:
        new = NewTopic(topic, partitions, replicas, topic_configs=configs)
        async with asyncio.timeout(HANG_S):
            while (await client.create_topics([new])).topic_errors[0][1] == _EXISTS:  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.01)


async def delete_records(address: str, topic: str, before: dict[int, int]) -> None:
    """Delete the records before an offset in some partitions, as retention does."""
    async with admin(address) as client:
        await client.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(before_offset=offset) for number, offset in before.items()}
        )


async def leader(address: str, topic: str, partition: int) -> int:
    """Return the number of the broker that leads a partition, -1 if none does."""
    async with admin(address) as client:
        (found,) = await client.describe_topics([topic])
        return next((each["leader"] for each in found["partitions"] if each["partition"] == partition), -1)


async def in_sync(address: str, topic: str) -> int:
    """Return how many brokers have all records, for the partition that has the fewest of them."""
    async with admin(address) as client:
        (found,) = await client.describe_topics([topic])
        return min((len(each["isr"]) for each in found["partitions"]), default=0)


def allow(port: int, user: str, topic: str, operation: int) -> None:
    """Give a permission on a topic to a user. Then other operations on the topic need a permission, too."""
    _call(port, _CREATE_ACLS, struct.pack(">i", 1) + _acl(user, topic, operation, _ALLOW))


def deny(port: int, user: str, topic: str, operation: int = _ALL) -> None:
    """Take a permission on a topic away from a user."""
    _call(port, _CREATE_ACLS, struct.pack(">i", 1) + _acl(user, topic, operation, _DENY))


def restore(port: int, user: str, topic: str, operation: int = _ALL) -> None:
    """Give the permission back that `deny` took away."""
    _call(port, _DELETE_ACLS, struct.pack(">i", 1) + _acl(user, topic, operation, _DENY))


def _acl(user: str, topic: str, operation: int, permission: int) -> bytes:
    resource = struct.pack(">b", _TOPIC) + _text(topic) + struct.pack(">b", _LITERAL)
    return resource + _text(f"User:{user}") + _text("*") + struct.pack(">bb", operation, permission)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _call(port: int, api: int, body: bytes) -> bytes:
    """Send a request in version 1 that aiokafka does not have, and return the response after its header."""
    request = struct.pack(">hhih", api, 1, 1, -1) + body
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            response = stream.read(size)[4:]
    (code,) = struct.unpack_from(">h", response, 8)
    assert code == 0, (code, response)
    return response
