"""The topics of a channel: their names, how they are created, and which settings can be used."""

from __future__ import annotations

import asyncio
import hashlib
import logging
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

logger = logging.getLogger("dws.kafka")

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


CONTROL_SETTINGS: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "600000",
    "segment.ms": "600000",
    "unclean.leader.election.enable": "true",
}
"""The settings of a new control topic. Its messages are of use only for live nodes, so it may lose some."""


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


async def describe(connections: AIOKafkaClient, names: Sequence[str]) -> list[Topic]:
    """Return what Kafka reports about some topics."""
    try:
        response = await connections.send(connections.get_random_node(), TopicsRequest(names))
    except NotImplementedError as error:
        raise WireUnusable("its version is too old, Kafka 2.8 or newer is required") from error
    return [Topic.read(row) for row in response.topics]


async def prepare(
    admin: AIOKafkaAdminClient, topic: str, control: str, options: KafkaOptions, partitions: int
) -> tuple[Topic, dict[str, str]]:
    """Create the topics that are missing, check them, and return the topic and its settings.

    Raises:
        WireUnusable: A topic cannot be created or used.
        LayoutMismatch: The topic has another number of partitions.
    """
    found, has_created = await describe(core(admin), [topic, control]), False
    while not all(each.error is NoError and -1 not in each.leaders for each in found):
        for each in found:
            _allow(each.error, each.name, "Describe")
        missing = {each.name for each in found if each.error is UnknownTopicOrPartitionError}
        if missing and not has_created:
            await _create(
                admin, _wanted(topic, control, options, partitions, len(core(admin).cluster.brokers())), missing
            )
            has_created = True
        elif not has_created:
            idle = next(each.name for each in found if -1 in each.leaders or each.error is not NoError)
            raise WireLost(f"a partition of topic {idle} has no leader", sent=False)
        await asyncio.sleep(_PAUSE_S)
        found = await describe(core(admin), [topic, control])
    for each in found:
        for operation in each.forbidden:
            _allow(TopicAuthorizationFailedError, each.name, operation)
    return await _check(admin, found[0], partitions)


def _wanted(topic: str, control: str, options: KafkaOptions, partitions: int, brokers: int) -> list[NewTopic]:
    replicas = min(3, brokers) if options.replicas is None else options.replicas
    return [
        NewTopic(topic, partitions, replicas, topic_configs=settings_of(options, replicas)),
        NewTopic(control, 1, replicas, topic_configs=CONTROL_SETTINGS),
    ]


async def _create(admin: AIOKafkaAdminClient, wanted: Sequence[NewTopic], missing: set[str]) -> None:
    response = await admin.create_topics([each for each in wanted if each.name in missing])
    for name, code, text in response.topic_errors:
        error = for_code(code)
        _allow(error, name, "Create")
        if error in (RequestTimedOutError, NotControllerError):
            raise WireLost(f"topic {name} could not be created: {text}", sent=False)
        if error not in (NoError, TopicAlreadyExistsError):
            raise WireUnusable(f"topic {name} cannot be created: {text or error.__name__}")


async def _check(admin: AIOKafkaAdminClient, topic: Topic, partitions: int) -> tuple[Topic, dict[str, str]]:
    if len(topic.leaders) != partitions:
        raise LayoutMismatch(
            f"topic {topic.name} has {len(topic.leaders)} partitions, but this node expects {partitions}.",
            fix=f"use ?partitions={len(topic.leaders)} on all nodes",
        )
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name)])
    ((code, _, _, _, rows, *_),) = response.resources
    _allow(for_code(code), topic.name, "DescribeConfigs")
    settings = {row[0]: row[1] for row in rows}
    if (problem := defect(topic, settings)) is not None:
        raise WireUnusable(problem)
    return topic, settings


def _allow(error: type[Exception], name: str, operation: str) -> None:
    if error in FORBIDDEN:
        raise WireUnusable(f"this user may not do {operation} on topic {name}")
