"""The proxy with an encrypted upstream."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.proxies import (
    Upstream,
    closed_with,
    echo,
    gateway_to,
    open_client,
    refused_handshake,
    url_of,
)
from websockets.asyncio.server import serve as serve_websockets


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "upstream.pem"
    encoded = serialization.Encoding.PEM
    private = key.private_bytes(encoded, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + made.public_bytes(encoded))
    return pem


def _server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_tls_upstream_works(certificate: Path) -> None:
    upstream = Upstream()
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with serve_websockets(echo, "127.0.0.1", 0, ssl=_server_tls(certificate)) as server:
        async with gateway_to(url_of(server).replace("ws:", "wss:"), ssl=trusted) as (url, front):
            async with open_client(url) as client:
                await client.send("x" * 200_000)
                assert await client.recv() == "x" * 200_000
            await front.wait_ended()
    async with serve_websockets(upstream, "127.0.0.1", 0, ssl=_server_tls(certificate)) as server:
        async with gateway_to(url_of(server).replace("ws:", "wss:"), ssl=trusted) as (url, front):
            client = await open_client(url)
            (await upstream.connection()).transport.abort()
            assert (await closed_with(client)).code == 1014
            await front.wait_ended()


async def test_unknown_upstream_certificate_is_502(certificate: Path) -> None:
    async with serve_websockets(echo, "127.0.0.1", 0, ssl=_server_tls(certificate)) as server:
        async with gateway_to(url_of(server).replace("ws:", "wss:")) as (url, _):
            assert (await refused_handshake(url)).status_code == 502
