"""How long the RPC being handled may still take, for the calls it makes itself."""

from __future__ import annotations

import time
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("kino_deadline", default=None)


def set_deadline(seconds: float | None) -> None:
    """The task's work must end in so many seconds; None: no limit."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def remaining_s() -> float | None:
    """Seconds left, never negative; None without a deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())
