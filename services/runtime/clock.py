"""Time as a dependency: the domain never asks the machine directly."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a service gets the time from."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC; it may jump when the machine's clock is set."""

    def monotonic(self) -> float:
        """Seconds since an unknown start; never goes back. For durations and time-outs."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The machine's time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The machine's monotonic clock, in seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told, and only forward; for tests and billing's test clocks."""

    def __init__(self, start: datetime = datetime(2025, 1, 1, tzinfo=UTC)) -> None:
        """`start` must be aware."""
        self._now = _utc(start)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """The time it was last set to, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds it was moved since it was made."""
        return self._monotonic

    def advance(self, by: timedelta | float) -> None:
        """Move forward by a timedelta or a number of seconds. Raises `ValueError` when negative."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self.set(self._now + step)

    def set(self, to: datetime) -> None:
        """Move forward to `to`. Raises `ValueError` when that lies in its past."""
        target = _utc(to)
        if target < self._now:
            raise ValueError(f"a clock only goes forward: {target} is before {self._now}")
        self._monotonic += (target - self._now).total_seconds()
        self._now = target


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return value.astimezone(UTC)


async def woken(wake: asyncio.Event, within_s: float) -> None:
    """Wait until `wake` is set, so long at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await wake.wait()
