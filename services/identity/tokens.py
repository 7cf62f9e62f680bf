"""Tokens of a session: access tokens by the deployment's signer, refresh tokens by its sealer."""

from __future__ import annotations

import json
import secrets
from datetime import datetime
from typing import Protocol

from services.identity.model import Grant, RefreshToken, Session, SessionEnded, User
from services.runtime.sealed import Sealer, SealExpired

_KIND = "refresh"
_SECRET_BYTES = 16


class Signer(Protocol):
    """Makes access tokens (`services.runtime.auth.TokenSigner`)."""

    def sign(self, subject: str, roles: frozenset[str], session: str) -> tuple[str, datetime]:
        """A token and when it expires."""


class Tokens:
    """Makes the tokens of sessions, and reads refresh tokens back.

    A refresh token proves itself twice: by the seal, whose key is not in the database, and by the session's
    secret, of which the database has only the hash. So neither a stolen database nor a stolen key makes one.
    """

    def __init__(self, signer: Signer, sealer: Sealer) -> None:
        """Both of the deployment."""
        self._signer, self._sealer = signer, sealer

    @staticmethod
    def new_secret() -> bytes:
        """The secret of a new session."""
        return secrets.token_bytes(_SECRET_BYTES)

    def grant(self, user: User, session: Session, secret: bytes) -> Grant:
        """Fresh tokens of a session's present generation."""
        access, access_expires = self._signer.sign(user.name, frozenset({user.role.value}), session.id)
        body = json.dumps([session.id, session.generation, secret.hex()]).encode()
        return Grant(
            user=user,
            access_token=access,
            access_token_expire_time=access_expires,
            refresh_token=self._sealer.seal(_KIND, body, session.expire_time),
            refresh_token_expire_time=session.expire_time,
        )

    def open(self, token: str) -> RefreshToken:
        """Raises `SessionEnded` for an expired token, `SealBroken` for one Kino never made."""
        try:
            session_id, generation, secret = json.loads(self._sealer.open(_KIND, token))
        except SealExpired:
            raise SessionEnded() from None
        return RefreshToken(session_id=session_id, generation=generation, secret=bytes.fromhex(secret))
