"""The topics of a channel: their names, how they are created, and which settings can be used."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    NoError,
    NotControllerError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from dws_core.plugin import LayoutMismatch, WireLost, WireUnusable
from dws_kafka._clients import FORBIDDEN, core
from dws_kafka._metadata import TopicsRequest
from dws_kafka._options import KafkaOptions

OVERHEAD_BYTES: Final = 128
"""Upper bound of the bytes that Kafka adds to a record that is alone in its batch."""

_OPERATIONS: Final = {"Read": 3, "Write": 4}
_LONGEST: Final = 200
_PAUSE_S: Final = 0.05
_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Topic:
    """What Kafka reports about a topic.

    Attributes:
        name: Its name.
        error: Class of the error, `NoError` if there is none.
        id: Identity, which changes if the topic is deleted and created again.
        leaders: The leader of each partition, -1 if it has none.
        replicas: Smallest number of replicas of a partition.
        forbidden: Operations that this user must not do.
    """

    name: str
    error: type[Exception]
    id: str
    leaders: Sequence[int]
    replicas: int
    forbidden: Sequence[str]

    @classmethod
    def read(cls, row: Sequence[Any]) -> Topic:
        """Read a topic of a response to `TopicsRequest`."""
        error, name, identity, _, partitions, operations, _ = row
        return cls(
            name=name,
            error=for_code(error),
            id=identity.hex(),
            leaders=[partition[2] for partition in partitions],
            replicas=min((len(partition[4]) for partition in partitions), default=0),
            forbidden=[word for word, bit in _OPERATIONS.items() if not operations >> bit & 1],
        )


def topic_of(prefix: str, channel: str) -> str:
    """Return the topic of a channel. Different channels have different topics, also where Kafka equates `.` and `_`."""
    name = re.sub(r"[^a-zA-Z0-9-]", lambda found: "".join(f"_{byte:02x}" for byte in found[0].encode()), channel)
    if len(prefix) + len(name) > _LONGEST:
        name = name[: _LONGEST - len(prefix) - 33] + "_" + hashlib.blake2b(channel.encode(), digest_size=16).hexdigest()
    return f"{prefix}.{name}"


def settings_of(options: KafkaOptions, replicas: int) -> dict[str, str]:
    """Return the settings of a new topic."""
    retention_ms = int(options.retention_s * 1000)
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "segment.ms": str(max(_MINUTE_MS, retention_ms // 8)),  # Kafka removes closed segments only
        "max.message.bytes": str(options.max_payload_bytes + 65_536),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(max(1, replicas - 1)),
    }


def defect(topic: Topic, settings: Mapping[str, str]) -> str | None:
    """Return why a topic cannot be used, or None."""
    minimum = int(settings["min.insync.replicas"])
    if settings["cleanup.policy"] != "delete":
        return f"topic {topic.name} has cleanup.policy={settings['cleanup.policy']} instead of delete, which loses messages"
    if minimum > topic.replicas:
        return f"topic {topic.name} has min.insync.replicas={minimum}, but only {topic.replicas} replicas"
    return None


def risks(topic: Topic, settings: Mapping[str, str]) -> list[str]:
    """Return why the loss of a server may lose messages of a topic."""
    found = []
    if topic.replicas < 2 or int(settings["min.insync.replicas"]) < 2:
        found.append(
            f"topic {topic.name} has {topic.replicas} replicas and min.insync.replicas={settings['min.insync.replicas']}, "
            "so the loss of a broker may lose messages"
        )
    if settings.get("unclean.leader.election.enable") == "true":
        found.append(f"topic {topic.name} has unclean.leader.election.enable=true, so an election may lose messages")
    return found


async def describe(connections: AIOKafkaClient, name: str) -> Topic:
    """Return what Kafka reports about a topic."""
    try:
        response = await connections.send(connections.get_random_node(), TopicsRequest([name]))
    except NotImplementedError as error:
        raise WireUnusable("its version is too old, Kafka 2.8 or newer is required") from error
    return Topic.read(response.topics[0])


async def prepare(
    admin: AIOKafkaAdminClient, name: str, options: KafkaOptions, partitions: int
) -> tuple[Topic, dict[str, str]]:
    """Create the topic if it is missing, check it, and return it with its settings.

    Raises:
        WireUnusable: The topic cannot be created or used.
        LayoutMismatch: The topic has another number of partitions.
    """
    topic, has_created = await describe(core(admin), name), False
    while topic.error is not NoError or -1 in topic.leaders:
        _allow(topic.error, name, "Describe")
        if topic.error is UnknownTopicOrPartitionError and not has_created:
            await _create(admin, name, options, partitions)
            has_created = True
        elif not has_created:
            raise WireLost(f"a partition of topic {name} has no leader", sent=False)
        await asyncio.sleep(_PAUSE_S)
        topic = await describe(core(admin), name)
    for operation in topic.forbidden:
        _allow(TopicAuthorizationFailedError, name, operation)
    if len(topic.leaders) != partitions:
        raise LayoutMismatch(
            f"topic {name} has {len(topic.leaders)} partitions, but this node expects {partitions}.",
            fix=f"use ?partitions={len(topic.leaders)} on all nodes",
        )
    settings = await _settings(admin, name)
    if (problem := defect(topic, settings)) is not None:
        raise WireUnusable(problem)
    return topic, settings


async def _create(admin: AIOKafkaAdminClient, name: str, options: KafkaOptions, partitions: int) -> None:
    brokers = len(core(admin).cluster.brokers())
    replicas = min(3, brokers) if options.replicas is None else options.replicas
    wanted = NewTopic(name, partitions, replicas, topic_configs=settings_of(options, replicas))
    ((_, code, text),) = (await admin.create_topics([wanted])).topic_errors
    error = for_code(code)
    _allow(error, name, "Create")
    if error in (RequestTimedOutError, NotControllerError):
        raise WireLost(f"topic {name} could not be created: {text}", sent=False)
    if error not in (NoError, TopicAlreadyExistsError):
        raise WireUnusable(f"topic {name} cannot be created: {text or error.__name__}")


async def _settings(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    ((code, _, _, _, rows, *_),) = response.resources
    _allow(for_code(code), name, "DescribeConfigs")
    return {row[0]: row[1] for row in rows}


def _allow(error: type[Exception], name: str, operation: str) -> None:
    if error in FORBIDDEN:
        raise WireUnusable(f"this user may not do {operation} on topic {name}")
