"""The request Metadata in version 12, which Kafka has since 2.8 and aiokafka does not. It returns ids of topics.

Unlike aiokafka's request, it does not create a missing topic (KIP-516, KIP-430).
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_NO_ID: Final = bytes(16)


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_NAME: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_NUMBERS: Final = CompactArray(Int32)
_BROKER: Final = (("node_id", Int32), ("host", _NAME), ("port", Int32), ("rack", _NAME), _TAGS)
_PARTITION: Final = (
    *(("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32)),
    *(("replicas", _NUMBERS), ("isr", _NUMBERS), ("offline_replicas", _NUMBERS), _TAGS),
)
_TOPIC: Final = (
    *(("error_code", Int16), ("topic", _NAME), ("topic_id", _Uuid), ("is_internal", Boolean)),
    *(("partitions", CompactArray(*_PARTITION)), ("authorized_operations", Int32), _TAGS),
)


class _TopicsResponse(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        *(("throttle_time_ms", Int32), ("brokers", CompactArray(*_BROKER)), ("cluster_id", _NAME)),
        *(("controller_id", Int32), ("topics", CompactArray(*_TOPIC)), _TAGS),
    )


class _TopicsRequestV12(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicsResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _NAME), _TAGS)),
        *(("allow_auto_topic_creation", Boolean), ("include_authorized_operations", Boolean), _TAGS),
    )


class TopicsRequest(Request[_TopicsRequestV12]):
    """Asks for some topics. The response contains for each its id, its partitions and the permissions of this user.

    Args:
        topics: Names of the topics.
    """

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_TopicsRequestV12]) -> _TopicsRequestV12:
        """Return the request in this version."""
        topics: list[tuple[Any, ...]] = [(_NO_ID, topic, {}) for topic in self._topics]
        return request_struct_class(topics, False, True, {})
