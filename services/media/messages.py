"""Shared messages of the contracts in the domain's terms."""

from __future__ import annotations

from fractions import Fraction

from kino.media.v1 import media_pb2 as media
from services.runtime.errors import InvalidArgument


def fraction_of(message: media.Rational, field: str) -> Fraction:
    """A fraction that must be positive; raises `InvalidArgument` naming `field`."""
    if message.numerator <= 0 or message.denominator <= 0:
        raise InvalidArgument(field, "must be positive")
    return Fraction(message.numerator, message.denominator)
