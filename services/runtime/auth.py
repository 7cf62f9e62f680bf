"""Who is calling: principals, users' access tokens, service tokens between processes, ownership.

User tokens are JWTs signed with ES256 by identity (issuer `kino`, audience `kino-api`), checked by the
gateway and again here. Service tokens are HS256 with a key derived from the internal key (issuer
`kino-internal`); the gateway never lets that issuer through. Each issuer is bound to its one algorithm.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey

from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import PermissionDenied, Unauthenticated
from services.runtime.keys import derive

USER_ISSUER = "kino"
SERVICE_ISSUER = "kino-internal"
AUDIENCE = "kino-api"
ACCESS_TOKEN_TTL = timedelta(minutes=15)
SERVICE_TOKEN_TTL = timedelta(minutes=5)

VIEWER = "viewer"
PUBLISHER = "publisher"
OPERATOR = "operator"
#: Each role with the roles it includes.
IMPLIED: Mapping[str, frozenset[str]] = {
    VIEWER: frozenset({VIEWER}),
    PUBLISHER: frozenset({PUBLISHER, VIEWER}),
    OPERATOR: frozenset({OPERATOR, PUBLISHER, VIEWER}),
}


class TokenInvalid(Unauthenticated):
    """The access token is not valid."""

    reason = "TOKEN_INVALID"


class TokenExpired(Unauthenticated):
    """The access token has expired; refresh it or sign in again."""

    reason = "TOKEN_EXPIRED"


class NotYours(PermissionDenied):
    """{resource} belongs to somebody else."""

    reason = "NOT_OWNER"
    fields = ("resource",)


class RoleMissing(PermissionDenied):
    """This needs the role {role}."""

    reason = "ROLE_MISSING"
    fields = ("role",)


class Kind(enum.Enum):
    """What sort of caller a principal is."""

    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """An authenticated caller."""

    kind: Kind
    #: `users/{user}` or `services/{service}`.
    subject: str
    #: Roles as granted (`viewer`, `publisher`, `operator`), without the implied ones.
    roles: frozenset[str] = field(default_factory=frozenset)
    #: The session the token belongs to; empty for services.
    session: str = ""

    @property
    def is_service(self) -> bool:
        """Whether this is a process of the deployment itself."""
        return self.kind is Kind.SERVICE

    def has_role(self, role: str) -> bool:
        """Whether a granted role is, or includes, `role`. A service has every role."""
        return self.is_service or any(role in IMPLIED.get(granted, ()) for granted in self.roles)

    def owns(self, name: str) -> bool:
        """Whether `name` is this user (`users/{user}`) or something below it."""
        return name == self.subject or name.startswith(self.subject + "/")


_current: ContextVar[Principal | None] = ContextVar("kino_principal", default=None)


def set_principal(value: Principal | None) -> None:
    """Make `value` the caller in this task; for the server's interceptor and tests."""
    _current.set(value)


def principal() -> Principal:
    """The caller of the RPC being handled. Raises `Unauthenticated` when nobody is signed in."""
    value = _current.get()
    if value is None:
        raise Unauthenticated()
    return value


def maybe_principal() -> Principal | None:
    """The caller, or None; for methods that are public or authenticated by a lease."""
    return _current.get()


def require_user(name: str) -> Principal:
    """The caller, who must own `name` (`users/{user}` or below), be an operator, or a service.

    Raises `NotYours` otherwise, also when the resource doesn't exist: existence isn't told to strangers.
    """
    caller = principal()
    if not (caller.owns(name) or caller.has_role(OPERATOR)):
        raise NotYours(name)
    return caller


def own_name(name: str) -> str:
    """`name` with the caller's id where it says `users/me`; any other name as it is.

    Raises `Unauthenticated` without a caller, `NotYours` for a service, which has no user of its own.
    """
    if name != "users/me" and not name.startswith("users/me/"):
        return name
    caller = principal()
    if caller.is_service:
        raise NotYours(name)
    return caller.subject + name.removeprefix("users/me")


def require_role(role: str) -> Principal:
    """The caller, who must have `role`. Raises `RoleMissing`."""
    caller = principal()
    if not caller.has_role(role):
        raise RoleMissing(role)
    return caller


class TokenSigner:
    """Makes users' access tokens; only identity holds one."""

    def __init__(self, signing_pem: bytes, clock: Clock | None = None) -> None:
        """`signing_pem` is the deployment's ES256 private key."""
        self._key = ECKey.import_key(signing_pem)
        self._header = {"alg": "ES256", "kid": self._key.thumbprint()}
        self._clock = clock or SystemClock()

    def sign(
        self, subject: str, roles: frozenset[str], session: str, ttl: timedelta = ACCESS_TOKEN_TTL
    ) -> tuple[str, datetime]:
        """A token for `users/{user}` and the moment it expires."""
        now = self._clock.now()
        expires = (now + ttl).replace(microsecond=0)
        claims = {
            "iss": USER_ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "roles": sorted(roles),
            "sid": session,
            "iat": int(now.timestamp()),
            "exp": int(expires.timestamp()),
        }
        return jwt.encode(self._header, claims, self._key), expires


class ServiceTokens:
    """Makes the tokens a service shows to others; renews each at half its life."""

    def __init__(self, internal_key: bytes, clock: Clock | None = None) -> None:
        """`internal_key` is the deployment's shared key."""
        self._key = OctKey.import_key(derive(internal_key, "service tokens"))
        self._clock = clock or SystemClock()
        self._cache: dict[str, tuple[str, datetime]] = {}

    def token(self, service: str) -> str:
        """A token whose subject is `services/{service}`."""
        now = self._clock.now()
        cached = self._cache.get(service)
        if cached is not None and now < cached[1]:
            return cached[0]
        claims = {
            "iss": SERVICE_ISSUER,
            "aud": AUDIENCE,
            "sub": f"services/{service}",
            "iat": int(now.timestamp()),
            "exp": int((now + SERVICE_TOKEN_TTL).timestamp()),
        }
        token = jwt.encode({"alg": "HS256"}, claims, self._key)
        self._cache[service] = token, now + SERVICE_TOKEN_TTL / 2
        return token


class TokenVerifier:
    """Checks both sorts of token."""

    def __init__(self, internal_key: bytes, jwks: Mapping[str, Any], clock: Clock | None = None) -> None:
        """`jwks` is identity's public key set (RFC 7517)."""
        self._users = KeySet.import_key_set({"keys": list(jwks["keys"])})
        self._services = OctKey.import_key(derive(internal_key, "service tokens"))
        self._clock = clock or SystemClock()

    def verify(self, token: str) -> Principal:
        """The caller a token stands for. Raises `TokenInvalid` or `TokenExpired`."""
        service = _unverified_issuer(token) == SERVICE_ISSUER
        try:
            if service:
                claims = jwt.decode(token, self._services, algorithms=["HS256"]).claims
            else:
                claims = jwt.decode(token, self._users, algorithms=["ES256"]).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise TokenInvalid() from None
        return self._principal(claims, service=service)

    def _principal(self, claims: dict[str, Any], *, service: bool) -> Principal:
        issuer = SERVICE_ISSUER if service else USER_ISSUER
        prefix = "services/" if service else "users/"
        subject, expires, roles = claims.get("sub"), claims.get("exp"), claims.get("roles", [])
        well_formed = (
            claims.get("iss") == issuer
            and claims.get("aud") == AUDIENCE
            and isinstance(subject, str)
            and subject.startswith(prefix)
            and type(expires) is int
            and isinstance(roles, list)
        )
        if not well_formed:
            raise TokenInvalid()
        if self._clock.now().timestamp() >= int(expires or 0):
            raise TokenExpired()
        if service:
            return Principal(kind=Kind.SERVICE, subject=str(subject))
        known = IMPLIED.keys() & {role for role in roles if isinstance(role, str)}
        return Principal(
            kind=Kind.USER, subject=str(subject), roles=frozenset(known), session=str(claims.get("sid", ""))
        )


def _unverified_issuer(token: str) -> str:
    """The issuer a token claims: chooses the key and algorithm it is then checked with, nothing else."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["iss"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise TokenInvalid() from None
