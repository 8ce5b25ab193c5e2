"""Logins, certificates and permissions."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from services.kafka import PrivateKafka
from support.broker_load import HISTORY, Load, Node, check, two_nodes, wait_for_end
from support.kafka_admin import DESCRIBE_CONFIGS, READ, WRITE, allow, create_topic, deny, restore

from dws_core import create_broker
from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable, Layout

USERS = {"ann": "secret", "bob": "hush"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def secure(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateKafka]:
    """A Kafka with logins, certificates and permissions. Without a login, everything is allowed."""
    certificate = tmp_path_factory.mktemp("server") / "server.pem"
    issued = authority.issue_cert("127.0.0.1", "localhost")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)  # Java reads no other form than PKCS8
    certificate.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + b"".join(part.bytes() for part in issued.cert_chain_pems)
    )
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required "
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    users = plain + " ".join(f'user_{user}="{word}"' for user, word in USERS.items()) + ";"
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }
    for name in ("sasl", "secure"):
        settings |= {
            f"listener.name.{name}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"listener.name.{name}.plain.sasl.jaas.config": users,
            f"listener.name.{name}.scram-sha-256.sasl.jaas.config": scram,
            f"listener.name.{name}.scram-sha-512.sasl.jaas.config": scram,
        }
    for name in ("tls", "secure"):
        settings |= {
            f"listener.name.{name}.ssl.keystore.type": "PEM",
            f"listener.name.{name}.ssl.keystore.location": str(certificate),
        }
    listeners = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "SECURE": "SASL_SSL"}
    server = PrivateKafka(listeners=listeners, scram=USERS, **settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def layout() -> Layout:
    return Layout(channel=f"security-{secrets.token_hex(4)}", partitions=2)


async def round_trip(url: str, at: Layout) -> None:
    node = Node(url, at, 1)
    await node.start()
    try:
        await node.broker.publish(0, "t", b"hello", history=HISTORY)
        await node.until(lambda: (b"hello") in [payload for _, payload in node.received[0]])
    finally:
        await node.broker.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_login_by_each_mechanism_works(secure: PrivateKafka, mechanism: str) -> None:
    url = f"kafka://ann:secret@127.0.0.1:{secure.ports['SASL']}?partitions=2&sasl_mechanism={mechanism}"
    await round_trip(url, layout())


@pytest.mark.anyio
async def test_tls_with_and_without_login_works(secure: PrivateKafka, ca_file: Path) -> None:
    options = f"?partitions=2&ssl_ca_file={ca_file}"
    await round_trip(f"kafkas://127.0.0.1:{secure.ports['TLS']}{options}", layout())
    url = f"kafkas://ann:secret@127.0.0.1:{secure.ports['SECURE']}{options}&sasl_mechanism=SCRAM-SHA-512"
    await round_trip(url, layout())


@pytest.mark.anyio
async def test_wrong_login_is_named(secure: PrivateKafka) -> None:
    with pytest.raises(BrokerMisconfigured, match="Authentication failed") as found:
        await round_trip(f"kafka://ann:wrong@127.0.0.1:{secure.ports['SASL']}", layout())
    assert "wrong" not in str(found.value)


@pytest.mark.anyio
async def test_unknown_certificate_is_named(secure: PrivateKafka) -> None:
    with pytest.raises(BrokerMisconfigured, match="certificate verify failed"):
        await round_trip(f"kafkas://127.0.0.1:{secure.ports['TLS']}", layout())


@pytest.mark.anyio
@pytest.mark.parametrize("missing", ["Read", "Write", "DescribeConfigs", "Describe"])
async def test_missing_permission_is_named(secure: PrivateKafka, missing: str) -> None:
    at = layout()
    topic = f"dws.{at.channel}"
    await create_topic(secure.address, topic, 2)
    operations = {"Read": READ, "Write": WRITE, "DescribeConfigs": DESCRIBE_CONFIGS}
    for name, operation in operations.items():
        if name != missing and (missing != "Describe" or name == "DescribeConfigs"):  # the others imply it
            allow(secure.port, "ann", topic, operation)
    with pytest.raises(BrokerMisconfigured, match=f"may not do {missing} on topic {topic}"):
        await round_trip(f"kafka://ann:secret@127.0.0.1:{secure.ports['SASL']}?partitions=2", at)


@pytest.mark.anyio
@pytest.mark.parametrize("operation", [READ, WRITE])
async def test_permission_taken_away_for_a_while_loses_nothing(secure: PrivateKafka, operation: int) -> None:
    at = layout()
    url = f"kafka://ann:secret@127.0.0.1:{secure.ports['SASL']}?partitions=2&probe_s=200ms&dead_s=2s"
    async with two_nodes(url, at) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            deny(secure.port, "ann", f"dws.{at.channel}", operation)
            await sender.until(lambda: sender.states[-1] == "degraded")
            restore(secure.port, "ann", f"dws.{at.channel}", operation)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        check(load, listener)
        assert (load.unknown, load.refused, listener.losses) == (set(), 0, [])


@pytest.mark.anyio
async def test_publish_without_permission_is_certainly_not_stored(secure: PrivateKafka) -> None:
    at = layout()
    async with two_nodes(f"kafka://bob:hush@127.0.0.1:{secure.ports['SASL']}?partitions=2", at) as (sender, _):
        deny(secure.port, "bob", f"dws.{at.channel}", WRITE)
        await sender.until(lambda: sender.states[-1] == "degraded")
        with pytest.raises(BrokerUnavailable):
            await sender.broker.publish(0, "t", b"no", history=HISTORY, deadline_s=0.5)
        restore(secure.port, "bob", f"dws.{at.channel}", WRITE)


def test_url_of_broker_hides_password() -> None:
    assert "secret" not in repr(create_broker("kafka://ann:secret@localhost"))
