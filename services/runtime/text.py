"""Text that people typed: one spelling of it, nothing invisible in it."""

from __future__ import annotations

import unicodedata

from services.runtime.errors import InvalidArgument


def display_text(value: str, field: str) -> str:
    """`value` in Unicode's form NFC, without space around it.

    Raises `InvalidArgument` that blames `field` when nothing is left, or when it holds control characters,
    which would let a name forge lines of a log or a table.
    """
    text = unicodedata.normalize("NFC", value).strip()
    if not text:
        raise InvalidArgument(field, "must not be blank")
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in text):
        raise InvalidArgument(field, "must not hold control characters or line breaks")
    return text
