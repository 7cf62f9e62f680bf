"""Identifiers that sort by the time they were made: UUID version 7 (RFC 9562, 5.7) in Crockford's base 32."""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import UTC, datetime

#: What `new_id` returns, as a pattern.
ID_PATTERN = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new identifier: 26 lower-case characters of Crockford's base 32, that sort by creation time.

    Within a process each is greater than the one before (RFC 9562, 6.2, method 3: the 12 bits below the
    milliseconds count their fraction, and step by one when the clock stands or goes back).
    """
    global _last
    with _lock:
        ticks = time.time_ns() * 4096 // 1_000_000
        _last = max(ticks, _last + 1)
        ticks = _last
    random = int.from_bytes(os.urandom(8), "big") >> 2
    value = (ticks >> 12) << 80 | 7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | random
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def time_of(identifier: str) -> datetime:
    """When an identifier was made, to the millisecond, in UTC. Raises `ValueError` for any other text."""
    if not ID_PATTERN.fullmatch(identifier):
        raise ValueError(f"not an identifier: {identifier[:40]!r}")
    value = 0
    for char in identifier:
        value = value << 5 | _VALUES[char]
    return datetime.fromtimestamp((value >> 80) / 1000, UTC)
