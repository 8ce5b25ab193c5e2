"""Options of a Kafka URL, and the arguments of aiokafka."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from dws_kafka import KafkaBroker
from dws_kafka._options import KafkaOptions, check, login

from dws_core.plugin import BrokerURL, InvalidBrokerURL


def read(text: str) -> dict[str, Any]:
    url = BrokerURL.parse(text)
    options = url.read_options(KafkaOptions)
    check(url, options)
    return login(url, options)


def test_broker_accepts_url_as_text() -> None:
    assert repr(KafkaBroker("kafka://user:secret@a")) == "<KafkaBroker kafka://user:***@a stopped>"
    with pytest.raises(InvalidBrokerURL, match="expected a text"):
        KafkaBroker(None)  # type: ignore[arg-type]


def test_hosts_have_default_port() -> None:
    assert read("kafka://a,b:1,[::1]:2")["bootstrap_servers"] == ["a:9092", "b:1", "[::1]:2"]
    assert read("kafka://")["bootstrap_servers"] == ["localhost:9092"]


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("kafka://h", "PLAINTEXT"),
        ("kafkas://h", "SSL"),
        ("kafka://u:p@h", "SASL_PLAINTEXT"),
        ("kafkas://u:p@h", "SASL_SSL"),
    ],
)
def test_scheme_and_user_choose_security_protocol(url: str, protocol: str) -> None:
    assert read(url)["security_protocol"] == protocol


def test_login_is_read_from_url() -> None:
    found = read("kafka://u%40x:p%2F@h?sasl_mechanism=SCRAM-SHA-512")
    assert [found[f"sasl_{name}"] for name in ("mechanism", "plain_username", "plain_password")] == [
        "SCRAM-SHA-512",
        "u@x",
        "p/",
    ]


def test_certificates_are_checked_unless_told_otherwise(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("client")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = f"ssl_ca_file={tmp_path}/ca.pem&ssl_cert_file={tmp_path}/cert.pem&ssl_key_file={tmp_path}/key.pem"
    context = read(f"kafkas://h?{files}")["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    context = read(f"kafkas://h?{files}&ssl_verify=no")["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_missing_certificate_file_is_named() -> None:
    with pytest.raises(InvalidBrokerURL, match=r"cannot be used: .*No such file"):
        read("kafkas://h?ssl_ca_file=/does/not/exist")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("kafka://h/topic", "no path"),
        ("kafka://h?partitions=0", "1 <= partitions"),
        ("kafka://h?prefix=a/b", "a prefix of"),
        ("kafka://h?prefix=", "a prefix of"),
        ("kafka://h?replicas=0", "replicas >= 1"),
        ("kafka://h?retention_s=1s", "retention_s >= 60s"),
        ("kafka://h?probe_s=5s", "probe_s < dead_s"),
        ("kafka://h?max_payload_bytes=1GB", "max_payload_bytes <= 64MiB"),
        ("kafka://u@h", "a password with the user"),
    ],
)
def test_value_out_of_range_is_refused(url: str, rule: str) -> None:
    with pytest.raises(InvalidBrokerURL, match=f"Fix: use .*{rule}"):
        read(url)


def test_unknown_option_lists_valid_ones() -> None:
    with pytest.raises(InvalidBrokerURL, match=r"partitions.*sasl_mechanism"):
        read("kafka://h?acks=1")


def test_compression_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    read("kafka://h?compression=gzip")
    monkeypatch.setattr("dws_kafka._options._COMPRESSORS", {"zstd": lambda: False})
    with pytest.raises(InvalidBrokerURL, match="Fix: pip install cramjam"):
        read("kafka://h?compression=zstd")


def test_options_reach_broker() -> None:
    broker = KafkaBroker.from_url(BrokerURL.parse("kafka://h?partitions=3&probe_s=2s&dead_s=9s&max_payload_bytes=5KiB"))
    assert (broker.partitions, broker.settings.probe_s, broker.settings.dead_s) == (3, 2.0, 9.0)
    assert broker.capabilities.max_payload_bytes == 5120
