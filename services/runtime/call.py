"""What is known of the RPC being handled, for the calls it makes itself: its id and the time it has left."""

from __future__ import annotations

import time
from contextvars import ContextVar

#: The metadata key that carries a request's id from service to service.
REQUEST_ID_KEY = "x-request-id"

_deadline: ContextVar[float | None] = ContextVar("kino_deadline", default=None)
_request_id: ContextVar[str | None] = ContextVar("kino_request_id", default=None)


def set_deadline(seconds: float | None) -> None:
    """The task's work must end in so many seconds; None: no limit."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def remaining_s() -> float | None:
    """Seconds left, never negative; None without a deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def set_request_id(value: str) -> None:
    """Name the request this task works for."""
    _request_id.set(value)


def request_id() -> str | None:
    """The id of the request this task works for; None outside of one."""
    return _request_id.get()
