"""Views: what a profile has seen of a title, built from reports whose order must not matter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from services.history.intervals import Intervals, bounded, clipped, length, union
from services.runtime.errors import InvalidArgument

_NS_PER_SECOND = 1_000_000_000
#: Longer than any title; keeps every time within 64 bits.
MAX_OFFSET_NS = 1_000 * 3600 * _NS_PER_SECOND
_FINISHED_NS = 30 * _NS_PER_SECOND
_FINISHED_PART = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, order=True)
class Order:
    """Which of two positions is newer: the later started playback's, then the higher sequence number's."""

    #: Server time of `StartPlayback`.
    start_time: datetime
    #: Decides between playbacks started at the same instant.
    lease: str
    sequence: int


@dataclass(frozen=True, kw_only=True)
class Key:
    """Whose view, of what."""

    #: `users/{user}/profiles/{profile}`.
    profile: str
    #: `titles/{title}`.
    title: str

    @property
    def name(self) -> str:
        """`users/{user}/profiles/{profile}/views/{title}`."""
        return f"{self.profile}/views/{self.title.removeprefix('titles/')}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """How far a playback is, as a client said and a server heard."""

    key: Key
    order: Order
    position_ns: int
    intervals: Intervals
    #: Length of the title when the playback was started; 0 when not known.
    duration_ns: int
    device: str
    receive_time: datetime

    def checked(self) -> Report:
        """This report within the title. Raises `InvalidArgument` for what can't have been watched."""
        _check_offset("position", self.position_ns)
        for index, (start, end) in enumerate(self.intervals):
            _check_offset(f"intervals[{index}].start_offset", start)
            _check_offset(f"intervals[{index}].end_offset", end)
            if start >= end:
                raise InvalidArgument(f"intervals[{index}]", "must end after its start")
        end = self.duration_ns or MAX_OFFSET_NS
        return replace(self, position_ns=min(self.position_ns, end), intervals=clipped(self.intervals, end))


def _check_offset(field: str, ns: int) -> None:
    if not 0 <= ns <= MAX_OFFSET_NS:
        raise InvalidArgument(field, "must be neither negative nor longer than any title")


@dataclass(frozen=True, kw_only=True)
class View:
    """What a profile has seen of a title.

    Views of the same key form a lattice: `merged` is commutative, associative and idempotent (but for the
    bound on the number of intervals), so reports may be added in any order and any number of times.
    """

    key: Key
    order: Order
    position_ns: int
    intervals: Intervals
    duration_ns: int
    device: str
    first_watch_time: datetime
    #: When the newest report was first heard.
    last_watch_time: datetime

    @classmethod
    def of(cls, report: Report) -> View:
        """What a single report says."""
        return cls(
            key=report.key,
            order=report.order,
            position_ns=report.position_ns,
            intervals=union(report.intervals),
            duration_ns=report.duration_ns,
            device=report.device,
            first_watch_time=report.receive_time,
            last_watch_time=report.receive_time,
        )

    def merged(self, other: View) -> View:
        """What both say together."""
        newer = max(self, other, key=View._rank)
        return replace(
            newer,
            intervals=bounded(union(self.intervals, other.intervals)),
            first_watch_time=min(self.first_watch_time, other.first_watch_time),
        )

    def _rank(self) -> tuple[Order, timedelta, int, int, str]:
        """A total order; of the same report heard twice the first hearing counts."""
        return self.order, _EPOCH - self.last_watch_time, self.position_ns, self.duration_ns, self.device

    @property
    def completion(self) -> float:
        """Share of the title watched, 0 to 1; 0 while its length is not known."""
        if not self.duration_ns:
            return 0.0
        return min(1.0, length(clipped(self.intervals, self.duration_ns)) / self.duration_ns)

    @property
    def finished(self) -> bool:
        """Whether the position is within the last 5 % or the last 30 s, whichever is shorter."""
        if not self.duration_ns:
            return False
        return self.position_ns >= self.duration_ns - min(self.duration_ns // _FINISHED_PART, _FINISHED_NS)
