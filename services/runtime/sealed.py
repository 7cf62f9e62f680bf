"""Sealed tokens: bytes that only Kino's own processes can read or make, safe to hand to a client.

A token is `version (1) | nonce (12) | AES-256-GCM(expiry in ms (8) | message)`, in unpadded base64url. Each
kind has a key of its own (HKDF, RFC 5869), so that a token of one kind never opens as another.
"""

from __future__ import annotations

import base64
import binascii
import os
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import Unauthenticated
from services.runtime.keys import derive

_VERSION = b"\x01"
_NONCE_BYTES = 12
_EXPIRY_BYTES = 8
_MAX_TOKEN_CHARS = 16 * 1024


class SealBroken(Unauthenticated):
    """The token is not one this service issued."""

    reason = "TOKEN_INVALID"


class SealExpired(Unauthenticated):
    """The token has expired."""

    reason = "TOKEN_EXPIRED"


class Sealer:
    """Seals and opens tokens with keys derived from the deployment's internal key."""

    def __init__(self, internal_key: bytes, clock: Clock | None = None) -> None:
        """`internal_key` is at least 32 random bytes, the same in every process of a deployment."""
        self._clock = clock or SystemClock()
        self._cipher = cache(lambda kind: AESGCM(derive(internal_key, f"sealed {kind}")))

    def seal(self, kind: str, message: bytes, expires: datetime | None) -> str:
        """A URL-safe token that `open` reads, with the same kind, until `expires` (None: for ever)."""
        expiry_ms = 0 if expires is None else round(expires.timestamp() * 1000)
        nonce = os.urandom(_NONCE_BYTES)
        box = self._cipher(kind).encrypt(nonce, expiry_ms.to_bytes(_EXPIRY_BYTES, "big") + message, _VERSION)
        return base64.urlsafe_b64encode(_VERSION + nonce + box).rstrip(b"=").decode()

    def open(self, kind: str, token: str, late: timedelta = timedelta()) -> bytes:
        """The message of a token, which may have expired by at most `late`.

        Raises `SealBroken` (not ours, other kind, changed) or `SealExpired`.
        """
        raw = _decode(token)
        version, nonce, box = raw[:1], raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
        if version != _VERSION or len(box) < _EXPIRY_BYTES + 16:
            raise SealBroken()
        try:
            plain = self._cipher(kind).decrypt(nonce, box, _VERSION)
        except InvalidTag:
            raise SealBroken() from None
        expiry_ms = int.from_bytes(plain[:_EXPIRY_BYTES], "big")
        if expiry_ms and self._clock.now() >= datetime.fromtimestamp(expiry_ms / 1000, UTC) + late:
            raise SealExpired()
        return plain[_EXPIRY_BYTES:]


def _decode(token: str) -> bytes:
    """Strict base64url: one spelling per token, so that a changed character never passes unseen."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SealBroken() from None
    if len(token) > _MAX_TOKEN_CHARS or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
        raise SealBroken()
    return raw
