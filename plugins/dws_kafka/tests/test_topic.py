"""Names and settings of topics."""

from __future__ import annotations

import re
import secrets
from typing import Any

import pytest
from aiokafka.errors import NoError
from dws_kafka._options import KafkaOptions
from dws_kafka._topic import Topic, defect, risks, settings_of, topic_of
from hypothesis import given
from hypothesis import strategies as st
from services.kafka import PrivateKafka
from support.broker_load import IgnoringSink
from support.kafka_admin import create_topic
from support.kafka_proxy import KafkaProxy

from dws_core import create_broker
from dws_core.plugin import BrokerError, BrokerMisconfigured, Layout, LayoutMismatch


def test_topic_shows_ordinary_channel() -> None:
    assert topic_of("dws", "chat-1") == "dws.chat-1"
    assert topic_of("dws", "a.b_c/ü") == "dws.a_2eb_5fc_2f_c3_bc"


@given(st.sets(st.text(max_size=300), min_size=2, max_size=2))
def test_different_channels_have_different_topics(channels: set[str]) -> None:
    """Kafka accepts at most 249 characters, and refuses names that differ only in `.` and `_`."""
    topics = [topic_of("dws", channel.encode(errors="ignore").decode()) for channel in channels]
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]{1,241}", topic) for topic in topics)
    if len({channel.encode(errors="ignore") for channel in channels}) == 2:
        assert len({topic.replace(".", "_") for topic in topics}) == 2


def test_new_topic_keeps_acknowledged_messages() -> None:
    settings = settings_of(KafkaOptions(retention_s=3600, max_payload_bytes=1000), replicas=3)
    assert settings["cleanup.policy"] == "delete"
    assert settings["min.insync.replicas"] == "2"
    assert int(settings["segment.ms"]) < int(settings["retention.ms"]) == 3_600_000
    assert int(settings["max.message.bytes"]) > 1000
    assert settings_of(KafkaOptions(), replicas=1)["min.insync.replicas"] == "1"


def topic(*, replicas: int = 3) -> Topic:
    return Topic("dws.chat", NoError, "", [1], replicas, [])


def settings(**changes: str) -> dict[str, str]:
    found = {"cleanup.policy": "delete", "min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    return found | {name.replace("_", "."): value for name, value in changes.items()}


def test_topic_that_loses_messages_is_refused() -> None:
    assert defect(topic(), settings()) is None
    assert "cleanup.policy=compact" in str(defect(topic(), settings(cleanup_policy="compact")))
    assert "only 1 replicas" in str(defect(topic(replicas=1), settings()))


def test_topic_that_may_lose_messages_is_reported() -> None:
    assert risks(topic(), settings()) == []
    assert "1 replicas" in risks(topic(replicas=1), settings(min_insync_replicas="1"))[0]
    assert "min.insync.replicas=1" in risks(topic(), settings(min_insync_replicas="1"))[0]
    assert "unclean" in risks(topic(), settings(unclean_leader_election_enable="true"))[0]


async def start(kafka: PrivateKafka, channel: str, options: str = "?partitions=2", partitions: int = 2) -> None:
    broker = create_broker(kafka.url + options)
    layout = Layout(channel=channel, partitions=partitions)
    await broker.start(node=secrets.token_bytes(8), layout=layout, sink=IgnoringSink())  # type: ignore[arg-type]
    await broker.stop()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("partitions", "changes", "error", "text"),
    [
        (3, {}, LayoutMismatch, r"has 3 partitions, but this node expects 2.*Fix: use \?partitions=3"),
        (2, {"cleanup_policy": "compact"}, BrokerMisconfigured, "cleanup.policy=compact"),
        (2, {"min_insync_replicas": "2"}, BrokerMisconfigured, "min.insync.replicas=2, but only 1 replicas"),
    ],
)
async def test_existing_topic_is_checked(
    kafka: PrivateKafka,
    proxy: KafkaProxy,
    partitions: int,
    changes: dict[str, str],
    error: type[BrokerError],
    text: str,
) -> None:
    channel = f"topics-{secrets.token_hex(4)}"
    await create_topic(kafka.address, f"dws.{channel}", partitions, **changes)
    with pytest.raises(error, match=text):
        await start(kafka, channel)


@pytest.mark.anyio
async def test_existing_topic_is_used_as_it_is(
    kafka: PrivateKafka, proxy: KafkaProxy, caplog: pytest.LogCaptureFixture
) -> None:
    channel = f"topics-{secrets.token_hex(4)}"
    await create_topic(kafka.address, f"mine.{channel}", 2, retention_ms="3600000")
    await start(kafka, channel, "?partitions=2&prefix=mine")
    assert f"topic mine.{channel} has 1 replicas" in caplog.text


@pytest.mark.anyio
async def test_topic_that_cannot_be_created_is_named(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    with pytest.raises(BrokerMisconfigured, match=r"cannot be created: .*replication factor"):
        await start(kafka, f"topics-{secrets.token_hex(4)}", "?partitions=2&replicas=9")


@pytest.mark.anyio
async def test_two_nodes_create_topic_at_the_same_time(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    import asyncio

    channel: Any = f"topics-{secrets.token_hex(4)}"
    await asyncio.gather(start(kafka, channel), start(kafka, channel), start(kafka, channel))
