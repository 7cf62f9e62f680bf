"""What a check of `kino doctor` says: a sentence, and where something is wrong what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: what was looked at, whether it is right, and a sentence."""

    check: str
    #: `warning`: works, with less than it should have.
    state: Literal["ok", "warning", "wrong"]
    sentence: str


def ok(check: str, sentence: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, state="ok", sentence=sentence)


def wrong(check: str, sentence: str) -> Finding:
    """Kino can't do its work like this."""
    return Finding(check=check, state="wrong", sentence=sentence)


def warning(check: str, sentence: str) -> Finding:
    """Kino works, with less than it should have."""
    return Finding(check=check, state="warning", sentence=sentence)
