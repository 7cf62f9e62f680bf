"""Accounts, profiles and sessions: the rules, without wire, store or cipher."""

from __future__ import annotations

import enum
import hashlib
import hmac
import unicodedata
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)

#: A refresh token that isn't used for this long ends the session.
REFRESH_TTL = timedelta(days=30)
#: No session outlives this, however often it is refreshed.
SESSION_TTL = timedelta(days=365)
#: A client whose answer got lost may use the replaced refresh token again for this long.
LOST_REPLY = timedelta(seconds=10)
#: The oldest session ends when a user opens one more.
MAX_SESSIONS = 100
MAX_PROFILES = 10
#: Failures for one address within the window, after which no password is looked at.
MAX_FAILURES = 10
FAILURE_WINDOW = timedelta(minutes=15)


class EmailTaken(AlreadyExists):
    """Another account has this e-mail address."""

    reason = "EMAIL_TAKEN"


class WrongCredentials(Unauthenticated):
    """The e-mail address or the password is wrong."""

    reason = "WRONG_CREDENTIALS"


class TooManyAttempts(ResourceExhausted):
    """Too many failed attempts for this address; wait {retry_after_ms} ms.

    The detail `quota` names the limit.
    """

    reason = "TOO_MANY_ATTEMPTS"


class SessionEnded(Unauthenticated):
    """The session has ended; sign in again."""

    reason = "SESSION_ENDED"


class RefreshTokenReused(Unauthenticated):
    """The refresh token was used before: the session has ended for safety; sign in again."""

    reason = "REFRESH_TOKEN_REUSED"


class ClaimInvalid(PermissionDenied):
    """The claim token is wrong or was used; the first start of the deployment prints it."""

    reason = "CLAIM_INVALID"


class LastOperator(FailedPrecondition):
    """{subject} is the last operator: make another one first."""

    reason = "LAST_OPERATOR"
    fields = ("subject",)


class LastProfile(FailedPrecondition):
    """{subject} is the last profile of its user: make another one first."""

    reason = "LAST_PROFILE"
    fields = ("subject",)


class ProfileLimit(ResourceExhausted):
    """A user has at most {limit} profiles."""

    reason = "PROFILE_LIMIT"
    fields = ("limit", "quota")


class Role(enum.Enum):
    """The highest role of a user; values as in access tokens."""

    VIEWER = "viewer"
    PUBLISHER = "publisher"
    OPERATOR = "operator"


@dataclass(frozen=True, kw_only=True)
class User:
    """A person with an account."""

    id: str
    #: As typed, in Unicode's form NFC.
    email: str
    display_name: str
    role: Role
    create_time: datetime

    @property
    def name(self) -> str:
        """Resource name."""
        return f"users/{self.id}"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user with what proves it."""

    user: User
    #: Argon2id in PHC string format.
    password_hash: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Somebody who watches under an account."""

    id: str
    user_id: str
    display_name: str
    create_time: datetime

    @property
    def name(self) -> str:
        """Resource name."""
        return f"users/{self.user_id}/profiles/{self.id}"


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """An order to erase what other services hold of a deleted profile."""

    #: Resource name.
    profile: str
    due_time: datetime
    #: How often it is still to be done.
    rounds: int


@dataclass(frozen=True, kw_only=True)
class RefreshToken:
    """What a refresh token says once its seal is open."""

    session_id: str
    #: Counts the refreshes of the session.
    generation: int
    #: The same through the life of a session; the store knows only its hash.
    secret: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A signed-in client. It exists until it ends."""

    id: str
    user_id: str
    secret_sha256: bytes = field(repr=False)
    #: Generation of the newest refresh token.
    generation: int
    #: When that was issued.
    rotate_time: datetime
    #: Hash of what is known of the client it was issued to; empty before the first refresh.
    rotate_client: str
    create_time: datetime
    expire_time: datetime
    #: As the client named itself; may be empty.
    device: str = ""

    def rotated(self, token: RefreshToken, client: str, now: datetime) -> Session | None:
        """The session after `client` used `token`; None when the use means theft (RFC 9700, 4.14.2).

        Unchanged for a client that repeats its last refresh because the answer got lost: it gets another
        token of the generation it missed. Raises `SessionEnded` when the session is over or the secret wrong.
        """
        if now >= self.expire_time or not hmac.compare_digest(_sha256(token.secret), self.secret_sha256):
            raise SessionEnded()
        if token.generation == self.generation:
            expires = min(now + REFRESH_TTL, self.create_time + SESSION_TTL)
            return replace(
                self,
                generation=self.generation + 1,
                rotate_time=now,
                rotate_client=client,
                expire_time=expires,
            )
        lost = token.generation == self.generation - 1 and now - self.rotate_time <= LOST_REPLY
        return self if lost and hmac.compare_digest(client.encode(), self.rotate_client.encode()) else None


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The tokens of a session, for its client alone."""

    user: User
    access_token: str = field(repr=False)
    access_token_expire_time: datetime
    refresh_token: str = field(repr=False)
    refresh_token_expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The deployment's one chance to make an operator without one."""

    token_sha256: bytes = field(repr=False)
    create_time: datetime
    #: When it was used; None before.
    claim_time: datetime | None = None

    def opens_with(self, token: str) -> bool:
        """Whether `token` is the unused claim token."""
        return self.claim_time is None and hmac.compare_digest(_sha256(token.encode()), self.token_sha256)


def new_session(session_id: str, user_id: str, secret: bytes, now: datetime, device: str = "") -> Session:
    """A session whose first refresh token has generation 0."""
    return Session(
        id=session_id,
        user_id=user_id,
        secret_sha256=_sha256(secret),
        generation=0,
        rotate_time=now,
        rotate_client="",
        create_time=now,
        expire_time=now + REFRESH_TTL,
        device=device,
    )


def new_claim(token: str, now: datetime) -> Claim:
    """An unused claim."""
    return Claim(token_sha256=_sha256(token.encode()), create_time=now)


def email_key(email: str) -> str:
    """What makes an address unique: it without regard to case and to the spelling of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).casefold())


def password_text(password: str) -> str:
    """A password as it is hashed: NFC, so that all keyboards spell an accent alike (RFC 8265, 4.2)."""
    return unicodedata.normalize("NFC", password)


def check_attempts(failures: list[datetime], now: datetime) -> None:
    """Raise `TooManyAttempts` when as many of the `failures` (ascending) as allowed lie within the window."""
    if len(failures) >= MAX_FAILURES:
        wait = failures[-MAX_FAILURES] + FAILURE_WINDOW - now
        retry_after_ms = -(-wait // timedelta(milliseconds=1))
        if retry_after_ms > 0:
            raise TooManyAttempts(quota="sign-in failures for an address", retry_after_ms=retry_after_ms)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
