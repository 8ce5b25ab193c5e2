"""The options of a RabbitMQ URL, and the addresses of its hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from dws_amqp import AmqpBroker
from dws_amqp._link import Target
from dws_amqp._options import AmqpOptions, read_options

from dws_core.plugin import BrokerURL, InvalidBrokerURL


def test_options_have_units() -> None:
    url = BrokerURL.parse("amqp://h?max_age_s=2m&segment_bytes=64KiB&max_stream_bytes=1MB&partitions=2&ssl_verify=no")
    options = read_options(url)
    assert options == AmqpOptions(
        max_age_s=120.0, segment_bytes=65_536, max_stream_bytes=1_000_000, partitions=2, ssl_verify=False
    )


def test_broker_accepts_url_as_text() -> None:
    assert repr(AmqpBroker("amqp://user:secret@a")) == "<AmqpBroker amqp://user:***@a stopped>"
    with pytest.raises(InvalidBrokerURL, match="expected a text"):
        AmqpBroker(None)  # type: ignore[arg-type]


def test_broker_uses_its_options() -> None:
    broker = AmqpBroker.from_url(BrokerURL.parse("amqp://h?partitions=3&max_payload_bytes=7&probe_s=2s&dead_s=9s"))
    assert (broker.partitions, broker.capabilities.max_payload_bytes) == (3, 7)
    assert (broker.settings.probe_s, broker.settings.dead_s) == (2.0, 9.0)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ("partitions=0", "partitions from 1"),
        ("prefix=amq.x", "a prefix"),
        ("prefix=a%20b", "a prefix"),
        ("max_age_s=10ms", "max_age_s"),
        ("segment_bytes=1KB", "segment_bytes"),
        ("max_stream_bytes=1MB", "max_stream_bytes"),
        ("probe_s=5s&dead_s=4s", "probe_s"),
        ("append_timeout_s=0", "append_timeout_s"),
        ("connect_timeout_s=0", "connect_timeout_s"),
        ("max_payload_bytes=17MB", "max_payload_bytes"),
        ("max_queue_bytes=0", "max_queue_bytes"),
    ],
)
def test_option_out_of_range_names_its_rule(options: str, rule: str) -> None:
    with pytest.raises(InvalidBrokerURL) as caught:
        AmqpBroker.from_url(BrokerURL.parse(f"amqp://h?{options}"))
    assert rule in caught.value.fix


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidBrokerURL, match="ssl_ca_file"):
        read_options(BrokerURL.parse(f"amqps://h?ssl_ca_file={tmp_path}/none.pem"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp:///", ("amqp", "localhost", 5672, "guest", "guest", "/")),
        ("amqps://h", ("amqps", "h", 5671, "guest", "guest", "/")),
        ("amqp://ann:p%40ss@h:7/%2Fchat", ("amqp", "h", 7, "ann", "p@ss", "//chat")),
        ("amqp://h/chat", ("amqp", "h", 5672, "guest", "guest", "/chat")),
    ],
)
def test_address_has_defaults(url: str, address: tuple[object, ...]) -> None:
    (found,) = Target(BrokerURL.parse(url), AmqpOptions()).addresses("name")
    assert (found.scheme, found.host, found.port, found.user, found.password, found.path) == address


def test_every_host_is_tried() -> None:
    target = Target(BrokerURL.parse("amqp://a,b:7,c"), AmqpOptions())
    assert {(url.host, url.port) for url in target.addresses("name")} == {("a", 5672), ("b", 7), ("c", 5672)}
    assert {target.addresses("name")[0].host for _ in range(100)} == {"a", "b", "c"}, "in a random order"
