"""JSON Web Tokens (RFC 7519), verified with the package PyJWT."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any, Final

from dws_core._auth.interface import Handshake, Principal
from dws_core._auth.key_set import KeySet
from dws_core._errors import AuthenticationFailed, ConfigurationError
from dws_core._wire.message import JSON

_MAX_TOKEN: Final = 16_384
"""Maximum length of a token, in characters."""

_REASONS: Final = {
    "ExpiredSignatureError": "the token has expired",
    "ImmatureSignatureError": "the token is not valid yet",
    "InvalidAudienceError": "the token is for another audience",
    "InvalidIssuerError": "the token is of another issuer",
    "InvalidSignatureError": "the signature of the token is wrong",
    "InvalidAlgorithmError": "the token uses an algorithm that is not allowed",
    "MissingRequiredClaimError": "the token misses a required claim",
}


class JWTAuthenticator:
    """Authenticates clients by a JSON Web Token: `WebSocketManager(..., authenticator=JWTAuthenticator(...))`.

    The token is a bearer token of the handshake, of `refresh`, or of the first message. Its signature, `exp`, `nbf`,
    audience and issuer are verified. A connection ends when its token expires. Needs `pip install "dws-core[jwt]"`.

    Args:
        key: Secret of at least 32 bytes for `HS256`, or public key in PEM format. Pass either this or `jwks_url`.
        jwks_url: URL of the key set of an identity provider, which is cached and fetched again when keys change.
        algorithms: Allowed algorithms, such as `["RS256"]`. The token does not choose.
        audience: Value that `aud` must contain. If None, tokens with an audience are refused.
        issuer: Value that `iss` must have. If None, the issuer is not checked.
        leeway_s: Allowed difference between the clocks, in seconds. A token is valid for this time after `exp`.
        principal_of: Function that returns the principal of verified claims, or None to refuse them. Its `expires_at` is
            set if it is None. If the function is None, the id is `sub`, and the scopes are those of `scope`.

    Raises:
        ConfigurationError: PyJWT is not installed, or arguments contradict each other.
    """

    def __init__(
        self,
        *,
        key: str | bytes | None = None,
        jwks_url: str | None = None,
        algorithms: Collection[str],
        audience: str | Collection[str] | None = None,
        issuer: str | None = None,
        leeway_s: float = 10.0,
        principal_of: Callable[[Mapping[str, JSON]], Principal | None] | None = None,
    ) -> None:
        self._jwt = _pyjwt()
        if bool(key) is bool(jwks_url):
            raise ConfigurationError("JWTAuthenticator needs a key.", fix="pass either key=... or jwks_url=...")
        self._algorithms = _check_algorithms(algorithms, jwks_url)
        self._key = key
        self._key_set = None if jwks_url is None else KeySet(jwks_url)
        self._audience = audience
        self._issuer = issuer
        self._leeway_s = leeway_s
        self._principal_of = principal_of or _principal_of

    async def authenticate(self, handshake: Handshake) -> Principal:
        """Return the principal of the handshake's bearer token.

        Raises:
            AuthenticationFailed: There is no token, or it is not valid.
            TimeoutError: The key set of the identity provider is unavailable.
        """
        if handshake.token is None:
            raise AuthenticationFailed("no bearer token in the handshake")
        return await self.authenticate_token(handshake.token)

    async def authenticate_token(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            AuthenticationFailed: The token is not valid.
            TimeoutError: The key set of the identity provider is unavailable.
        """
        if len(token) > _MAX_TOKEN:
            raise AuthenticationFailed(f"the token is longer than {_MAX_TOKEN} characters")
        claims = self._verified(token, await self._key_of(token))
        principal = self._principal_of(claims)
        if principal is None:
            raise AuthenticationFailed("the claims of the token are not accepted")
        if principal.expires_at is not None:
            return principal
        return Principal(
            id=principal.id,
            claims=principal.claims,
            scopes=principal.scopes,
            expires_at=float(claims["exp"]) + self._leeway_s,
        )

    async def _key_of(self, token: str) -> Any:
        if self._key_set is None:
            return self._key
        header = self._parsed(lambda: self._jwt.get_unverified_header(token))
        if header.get("alg") not in self._algorithms:
            raise AuthenticationFailed(_REASONS["InvalidAlgorithmError"])
        return await self._key_set.key(header.get("kid"))

    def _verified(self, token: str, key: Any) -> Mapping[str, JSON]:
        claims: Mapping[str, JSON] = self._parsed(
            lambda: self._jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": ["exp", "sub"]},
            )
        )
        return claims

    def _parsed(self, parse: Callable[[], Any]) -> Any:
        """Call a function of PyJWT. Its errors may contain parts of the token, so they are not chained."""
        try:
            return parse()
        except (self._jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            reason = _REASONS.get(type(error).__name__, "the token is not valid")
        raise AuthenticationFailed(reason)


def _pyjwt() -> Any:
    try:
        return import_module("jwt")
    except ImportError as error:
        raise ConfigurationError(
            "JWTAuthenticator needs the package PyJWT.", fix='pip install "dws-core[jwt]"'
        ) from error


def _check_algorithms(algorithms: Collection[str], jwks_url: str | None) -> list[str]:
    """Return the algorithms as a list.

    Raises:
        ConfigurationError: There are none, or one of them does not verify anything.
    """
    if isinstance(algorithms, str) or not algorithms:
        raise ConfigurationError(f"algorithms={algorithms!r} is not a list.", fix='write algorithms=["RS256"]')
    for name in algorithms:
        if name.lower() == "none" or (jwks_url is not None and name.startswith("HS")):
            raise ConfigurationError(
                f"the algorithm {name!r} does not prove who made a token.", fix='use one such as "RS256" or "ES256"'
            )
    return list(algorithms)


def _principal_of(claims: Mapping[str, JSON]) -> Principal | None:
    user, scope = claims["sub"], claims.get("scope", "")
    if not isinstance(user, str) or not user:
        return None
    return Principal(id=user, claims=claims, scopes=frozenset(scope.split() if isinstance(scope, str) else ()))
