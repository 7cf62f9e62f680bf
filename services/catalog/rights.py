"""When and where a title may be watched."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.runtime.errors import InvalidArgument


@dataclass(frozen=True, kw_only=True)
class Window:
    """A time and the regions in which a title may be watched."""

    #: First moment; None: since ever.
    start: datetime | None = None
    #: First moment after it; None: for ever.
    end: datetime | None = None
    #: ISO 3166-1 alpha-2; none: everywhere, also where the region is not known.
    regions: tuple[str, ...] = ()

    def begun(self, now: datetime) -> bool:
        """Whether `now` is not before it."""
        return self.start is None or self.start <= now

    def over(self, now: datetime) -> bool:
        """Whether `now` is after it."""
        return self.end is not None and self.end <= now


def checked(windows: Sequence[Window]) -> tuple[Window, ...]:
    """These windows, if each lasts. Raises `InvalidArgument`."""
    for index, window in enumerate(windows):
        if window.start is not None and window.over(window.start):
            raise InvalidArgument(f"title.rights[{index}].end_time", "must be after start_time")
    return tuple(windows)


class Right(enum.Enum):
    """See `kino.catalog.v1.Availability.State`."""

    AVAILABLE = 1
    UPCOMING = 2
    EXPIRED = 3
    OUTSIDE_REGION = 4


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether a title may be watched in a region at a moment."""

    right: Right
    region: str
    #: When that changes next; None: it doesn't.
    change_time: datetime | None = None


def availability(windows: Sequence[Window], region: str, now: datetime) -> Availability:
    """What the windows say of a region (empty: not known); no windows at all: always and everywhere."""
    there = [window for window in windows if not window.regions or region in window.regions]
    if windows and not there:
        return Availability(right=Right.OUTSIDE_REGION, region=region)
    if not windows or any(window.begun(now) and not window.over(now) for window in there):
        return Availability(right=Right.AVAILABLE, region=region, change_time=_end(there, now))
    coming = [window.start for window in there if window.start is not None and window.start > now]
    if coming:
        return Availability(right=Right.UPCOMING, region=region, change_time=min(coming))
    return Availability(right=Right.EXPIRED, region=region)


def _end(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When the last of the windows that follow each other without a gap ends; None: never."""
    end = now
    for window in sorted(windows, key=lambda one: one.start or now):
        if window.begun(end) and not window.over(end):
            if window.end is None:
                return None
            end = window.end
    return None if end == now else end
