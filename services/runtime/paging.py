"""Opaque page tokens (AIP-158): a cursor sealed with what was asked, so that no other query can use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta

from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import InvalidArgument, Unauthenticated
from services.runtime.sealed import Sealer

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
_KIND = "page"
_LIFETIME = timedelta(days=3)


def page_size(requested: int, *, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """The number of items to return: 0 means the default, more than the maximum is cut to it.

    Raises `InvalidArgument` when negative.
    """
    if requested < 0:
        raise InvalidArgument("page_size", "must not be negative")
    return min(requested or default, maximum)


class Pager:
    """Makes and reads page tokens."""

    def __init__(self, sealer: Sealer, clock: Clock | None = None) -> None:
        """Tokens live three days."""
        self._sealer = sealer
        self._clock = clock or SystemClock()

    def token(self, query: str, cursor: Sequence[str | int | float | None]) -> str:
        """The token of the page after `cursor`; `query` is whatever else the request asked, as text."""
        body = json.dumps([_digest(query), list(cursor)], separators=(",", ":")).encode()
        return self._sealer.seal(_KIND, body, self._clock.now() + _LIFETIME)

    def cursor(self, query: str, token: str) -> list[str | int | float | None] | None:
        """The cursor in a token; None for the first page (an empty token).

        Raises `InvalidArgument` for a token that is forged, expired or of another query.
        """
        if not token:
            return None
        try:
            digest, cursor = json.loads(self._sealer.open(_KIND, token))
        except Unauthenticated as error:
            raise InvalidArgument(
                "page_token", f"{error.message} Start again without a page token."
            ) from None
        if digest != _digest(query):
            raise InvalidArgument(
                "page_token", "belongs to another query: all other fields must stay the same"
            )
        return list(cursor)


def _digest(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:16]
