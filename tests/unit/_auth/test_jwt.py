"""JSON Web Tokens: good ones, and every kind of bad one."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dws_core import AuthenticationFailed, ConfigurationError, Handshake, JWTAuthenticator, Principal
from dws_core.testing import AuthenticatorConformance

SECRET = "a secret of more than 32 bytes, as HS256 needs"
OTHER = "another secret of more than 32 bytes, of nobody"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def claims(**changes: Any) -> dict[str, Any]:
    found = {"sub": "ann", "exp": int(time.time()) + 600, "aud": "chat", "iss": "https://id.example", **changes}
    return {name: value for name, value in found.items() if value is not None}


def token(key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm)


def raw(header: Any, payload: Any, signature: str = "") -> str:
    """Return a token whose parts nobody has checked."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), signature])


def authenticator(**changes: Any) -> JWTAuthenticator:
    options: dict[str, Any] = {
        "key": SECRET,
        "algorithms": ["HS256"],
        "audience": "chat",
        "issuer": "https://id.example",
        **changes,
    }
    return JWTAuthenticator(**options)


def with_token(text: str) -> Handshake:
    return Handshake(path="/ws", headers={"authorization": f"Bearer {text}"}, token=text)


class TestJWTConformance(AuthenticatorConformance):
    @pytest.fixture
    def authenticator(self) -> JWTAuthenticator:
        return authenticator()

    @pytest.fixture
    def valid_handshake(self) -> Handshake:
        return with_token(token(scope="read write"))

    @pytest.fixture
    def expired_handshake(self) -> Handshake:
        return with_token(token(exp=1))

    @pytest.fixture
    def malformed_handshake(self) -> Handshake:
        return with_token("%%%nonsense%%%")


async def test_claims_become_principal() -> None:
    exp = int(time.time()) + 600
    principal = await authenticator(leeway_s=5).authenticate_token(token(exp=exp, scope="read write", tenant="acme"))
    assert (principal.id, principal.scopes, principal.expires_at) == ("ann", {"read", "write"}, exp + 5)
    assert principal.claims["tenant"] == "acme"


BAD: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: token(exp=int(time.time()) - 60), "has expired"),
    "not yet valid": (lambda: token(nbf=int(time.time()) + 600), "not valid yet"),
    "other audience": (lambda: token(aud="mail"), "another audience"),
    "no audience": (lambda: token(aud=None), "misses a required claim"),
    "other issuer": (lambda: token(iss="https://evil.example"), "another issuer"),
    "other key": (lambda: token(OTHER), "signature"),
    "other algorithm": (lambda: token(PRIVATE, "RS256"), "algorithm"),
    "no expiry": (lambda: token(exp=None), "misses a required claim"),
    "no user": (lambda: token(sub=None), "misses a required claim"),
    "empty user": (lambda: token(sub=""), "not accepted"),
    "none": (lambda: raw({"alg": "none"}, claims()), "algorithm"),
    "None": (lambda: raw({"alg": "None"}, claims()), "algorithm"),
    "user is a number": (lambda: raw({"alg": "HS256"}, claims(sub=7)), "the token"),
    "infinite expiry": (lambda: raw({"alg": "HS256"}, b'{"sub": "ann", "exp": 1e400}'), "the token"),
    "header is a list": (lambda: raw([], claims()), "the token"),
    "deep": (lambda: raw(b"[" * 6000, {}), "the token"),
    "huge": (lambda: "x" * 20_000, "longer than"),
    "empty": (lambda: "", "the token"),
    "dots": (lambda: "..", "the token"),
    "unicode": (lambda: "é.ü.ß", "the token"),
    "surrogate": (lambda: "\ud800", "the token"),
}
"""What is wrong with a token → a function that makes it when its test runs (as tokens expire), and the reason to expect."""


@pytest.mark.parametrize(("make_token", "reason"), BAD.values(), ids=BAD)
async def test_bad_token_is_refused_with_reason(make_token: Callable[[], str], reason: str) -> None:
    text = make_token()
    with pytest.raises(AuthenticationFailed, match=reason) as refused:
        await authenticator().authenticate_token(text)
    assert refused.value.__cause__ is None
    assert not text or text not in str(refused.value)


async def test_signed_token_with_infinite_expiry_is_refused() -> None:
    signed = jwt.api_jws.encode(b'{"sub": "ann", "aud": "chat", "iss": "https://id.example", "exp": 1e400}', SECRET)
    with pytest.raises(AuthenticationFailed):
        await authenticator().authenticate_token(signed)


async def test_public_key_is_no_secret() -> None:
    """A token that is signed with the public key as the secret of HS256 is refused."""
    header, payload = raw({"alg": "HS256", "typ": "JWT"}, claims(), "").split(".")[:2]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{header}.{payload}".encode(), PUBLIC.encode()
    )
    forged = f"{header}.{payload}." + base64.urlsafe_b64encode(signature).decode().rstrip("=")
    with pytest.raises(AuthenticationFailed, match="algorithm"):
        await authenticator(key=PUBLIC, algorithms=["RS256"]).authenticate_token(forged)
    assert (
        await authenticator(key=PUBLIC, algorithms=["RS256"]).authenticate_token(token(PRIVATE, "RS256"))
    ).id == "ann"


async def test_leeway_allows_slow_clocks() -> None:
    late = token(exp=int(time.time()) - 5)
    principal = await authenticator(leeway_s=60).authenticate_token(late)
    assert principal.expires_at is not None
    assert principal.expires_at > time.time()
    with pytest.raises(AuthenticationFailed, match="expired"):
        await authenticator(leeway_s=0).authenticate_token(late)


async def test_application_chooses_principal() -> None:
    def of(found: Any) -> Principal | None:
        return Principal(id=found["email"]) if found.get("email_verified") else None

    made = authenticator(principal_of=of)
    principal = await made.authenticate_token(token(email="ann@example.com", email_verified=True))
    assert (principal.id, principal.expires_at is not None) == ("ann@example.com", True)
    with pytest.raises(AuthenticationFailed, match="not accepted"):
        await made.authenticate_token(token(email="ann@example.com"))


@pytest.fixture
def provider() -> Iterator[str]:
    """Serve the key set of an identity provider, and return its URL."""
    members = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())), "kid": "k1", "alg": "RS256"}
    document = json.dumps({"keys": [members]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_key_set_of_provider_verifies_tokens(provider: str) -> None:
    made = authenticator(key=None, jwks_url=provider, algorithms=["RS256"])
    signed = jwt.encode(claims(), PRIVATE, algorithm="RS256", headers={"kid": "k1"})
    assert (await made.authenticate_token(signed)).id == "ann"
    unknown = jwt.encode(claims(), PRIVATE, algorithm="RS256", headers={"kid": "k2"})
    with pytest.raises(AuthenticationFailed, match="unknown key"):
        await made.authenticate_token(unknown)
    with pytest.raises(AuthenticationFailed, match="algorithm"):
        await made.authenticate_token(token())
    with pytest.raises(AuthenticationFailed, match="not valid"):
        await made.authenticate_token("nonsense")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": None}, "needs a key"),
        ({"key": ""}, "needs a key"),
        ({"jwks_url": "https://id.example"}, "needs a key"),
        ({"algorithms": []}, "not a list"),
        ({"algorithms": "HS256"}, "not a list"),
        ({"algorithms": ["none"]}, "does not prove"),
        ({"key": None, "jwks_url": "https://id.example", "algorithms": ["HS256"]}, "does not prove"),
    ],
)
def test_wrong_configuration_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        authenticator(**options)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigurationError, match=r'pip install "dws-core\[jwt\]"'):
        authenticator()
