"""Which compression a reader of HTTP takes."""

from __future__ import annotations


def accepts(accepted: str, coding: str) -> bool:
    """Whether a coding is listed and not refused by a weight of zero (RFC 9110, 12.5.3)."""
    for item in accepted.split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() == coding:
            weight = parameters.partition("q=")[2].strip()
            return not weight or bool(weight.strip("0."))
    return False
