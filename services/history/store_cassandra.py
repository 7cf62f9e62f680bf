"""The store of history on Cassandra: registers and unions that merge by themselves, whatever came first.

No clock of a server or a device decides between two writes. Every cell's write timestamp is what orders it:

- `position` by the report's sequence number, in the row of its playback (start, lease). The newest row with
  one says where the profile is. Of equal numbers Cassandra keeps the greater value, and `_packed` makes that
  the hearing which `View.merged` prefers.
- `watched[start] = end` by its end: of two stretches from the same start the longer one stays. A stretch is
  deleted only after another one that covers it was stored, so that a deletion loses nothing.
- `first_watch_us` by its distance from the end of time: the earliest stays.
- days, years and marks of deletion by the start of the playbacks they stand for. So a deletion's tombstone
  covers what was started until then, and nothing that was started later.

Read first, then write what is new: that keeps partitions small, but nothing depends on its still being true.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.history.cassandra import Cassandra, Statement
from services.history.intervals import Intervals, bounded, union
from services.history.model import Key, Order, Report, View

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_LAST = (1 << 63) - 1
#: A view of more playbacks is merged into the newest one.
_MOST_PLAYBACKS = 4
#: Views read by one statement; index rows read by one.
_VIEWS_AT_ONCE = 32
_DAYS_AT_ONCE = 200
_AT_ONCE = 16
#: How far `unfinished` looks.
MOST_LOOKED_AT = 500

_COLUMNS = (
    "title, start_us, lease, deleted_until_us, position, WRITETIME(position), first_watch_us, watched, days"
)
_VIEW = f"SELECT {_COLUMNS} FROM views WHERE profile = ? AND title = ?"
_VIEWS = f"SELECT {_COLUMNS} FROM views WHERE profile = ? AND title IN ?"
_PLAYBACK = "WHERE profile = ? AND title = ? AND start_us = ? AND lease = ?"
_SET_POSITION = f"UPDATE views USING TIMESTAMP ? SET position = ? {_PLAYBACK}"
_SET_FIRST = f"UPDATE views USING TIMESTAMP ? SET first_watch_us = ? {_PLAYBACK}"
_SET_STRETCH = f"UPDATE views USING TIMESTAMP ? SET watched[?] = ? {_PLAYBACK}"
_ADD_DAYS = f"UPDATE views USING TIMESTAMP 1 SET days = days + ? {_PLAYBACK}"
_DROP_POSITION = f"DELETE position FROM views USING TIMESTAMP ? {_PLAYBACK}"
_DROP_FIRST = f"DELETE first_watch_us FROM views USING TIMESTAMP ? {_PLAYBACK}"
_DROP_STRETCH = f"DELETE watched[?] FROM views USING TIMESTAMP ? {_PLAYBACK}"
_DROP_DAY = f"DELETE days[?] FROM views USING TIMESTAMP 1 {_PLAYBACK}"
_MARK_VIEW = "UPDATE views USING TIMESTAMP ? SET deleted_until_us = ? WHERE profile = ? AND title = ?"
_DROP_PLAYBACKS = (
    f"DELETE FROM views USING TIMESTAMP {_LAST} WHERE profile = ? AND title = ? AND start_us <= ?"
)

_PROFILE = "SELECT year, cleared_until_us FROM profiles WHERE profile = ?"
_SET_YEAR = "INSERT INTO profiles (profile, year) VALUES (?, ?) USING TIMESTAMP ?"
_DROP_YEAR = "DELETE FROM profiles USING TIMESTAMP ? WHERE profile = ? AND year = ?"
_MARK_PROFILE = "UPDATE profiles USING TIMESTAMP ? SET cleared_until_us = ? WHERE profile = ?"

_DAYS = (
    "SELECT day, title, start_us FROM watch_days WHERE profile = ? AND year = ? AND (day, title) < (?, ?)"
    f" LIMIT {_DAYS_AT_ONCE}"
)
_SET_DAY = (
    "INSERT INTO watch_days (profile, year, day, title, start_us) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
)
_DROP_ENTRY = (
    "DELETE FROM watch_days USING TIMESTAMP ? WHERE profile = ? AND year = ? AND day = ? AND title = ?"
)
_DROP_DAYS = "DELETE FROM watch_days USING TIMESTAMP ? WHERE profile = ? AND year = ?"


@dataclass(frozen=True, kw_only=True)
class _Playback:
    """One row of a view: what its playback reported, or what older ones did and was merged into it."""

    key: Key
    start_us: int
    lease: str
    position: bytes | None = None
    sequence: int | None = None
    first_watch_us: int | None = None
    watched: Mapping[int, int] = field(default_factory=dict)
    days: frozenset[int] = frozenset()

    @property
    def at(self) -> tuple[str, str, int, str]:
        """Its primary key."""
        return self.key.profile, self.key.title, self.start_us, self.lease

    def with_only(self, stretches: Intervals) -> list[Statement]:
        """Statements that make `stretches`, which cover its own, all it has."""
        starts = {start for start, _ in stretches}
        new = [
            (_SET_STRETCH, (end, start, end, *self.at))
            for start, end in stretches
            if self.watched.get(start) != end
        ]
        return new + self._without(start for start in self.watched if start not in starts)

    def begun(self, first_watch_us: int) -> list[Statement]:
        """Statements that make it begin no later than then."""
        if self.first_watch_us is not None and self.first_watch_us <= first_watch_us:
            return []
        return [(_SET_FIRST, (_LAST - first_watch_us, first_watch_us, *self.at))]

    def gone(self) -> list[Statement]:
        """Statements that take away what was read of it, and nothing that came later."""
        gone = self._without(self.watched)
        if self.sequence is not None:
            gone.append((_DROP_POSITION, (self.sequence, *self.at)))
        if self.first_watch_us is not None:
            gone.append((_DROP_FIRST, (_LAST - self.first_watch_us, *self.at)))
        return gone + [(_DROP_DAY, (day, *self.at)) for day in self.days]

    def _without(self, starts: Iterable[int]) -> list[Statement]:
        return [(_DROP_STRETCH, (start, self.watched[start], *self.at)) for start in starts]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A view as its partition holds it: playbacks that are not deleted, the newest first."""

    deleted_until_us: int
    playbacks: Sequence[_Playback]

    @property
    def newest_us(self) -> int:
        return self.playbacks[0].start_us if self.playbacks else -1

    @property
    def watched(self) -> Intervals:
        return bounded(union(*(playback.watched.items() for playback in self.playbacks)))

    @property
    def first_watch_us(self) -> int:
        return min(
            (one.first_watch_us for one in self.playbacks if one.first_watch_us is not None), default=_LAST
        )

    def playback(self, key: Key, order: Order) -> _Playback:
        """The row of a report's playback, empty when there is none."""
        own = _us(order.start_time), order.lease
        found = [one for one in self.playbacks if (one.start_us, one.lease) == own]
        return found[0] if found else _Playback(key=key, start_us=own[0], lease=own[1])

    def view(self) -> View | None:
        """What they say together."""
        newest = next((one for one in self.playbacks if one.position is not None), None)
        if newest is None or newest.position is None or newest.sequence is None:
            return None
        last_watch_us, position_ns, duration_ns, device = _unpacked(newest.position)
        return View(
            key=newest.key,
            order=Order(start_time=_time(newest.start_us), lease=newest.lease, sequence=newest.sequence),
            position_ns=position_ns,
            intervals=self.watched,
            duration_ns=duration_ns,
            device=device,
            first_watch_time=_time(self.first_watch_us),
            last_watch_time=_time(last_watch_us),
        )


@dataclass(frozen=True, kw_only=True)
class _Profile:
    """Until when all of a profile was cleared, and the years in which it watched anything, newest first."""

    cleared_until_us: int
    years: Sequence[int]


class CassandraHistory:
    """A `HistoryStore` in one keyspace."""

    def __init__(self, cassandra: Cassandra) -> None:
        """The cluster may be opened later."""
        self._cassandra = cassandra

    async def record(self, report: Report) -> View | None:
        """See `HistoryStore.record`."""
        found = await self._found(report.key)
        start_us = _us(report.order.start_time)
        if start_us <= found.deleted_until_us:
            return None
        playback = found.playback(report.key, report.order)
        changes = _changes(playback, report)
        day = _us(report.receive_time) // _DAY_US
        if day not in playback.days:
            # First where it will be looked for: a view that can't be listed must not be acknowledged.
            await self._list(report.key, day, start_us)
            changes.append((_ADD_DAYS, ({day}, *playback.at)))
        await self._cassandra.batch(changes)
        if len(found.playbacks) > _MOST_PLAYBACKS:
            await self._merge(report.key)
        old, new = found.view(), View.of(report)
        return new if old is None else old.merged(new)

    async def view(self, key: Key) -> View | None:
        """See `HistoryStore.view`."""
        return (await self._found(key)).view()

    async def views(self, profile: str, after: tuple[datetime, str] | None, limit: int) -> list[View]:
        """See `HistoryStore.views`."""
        return await self._newest(profile, after, limit, lambda view: True)

    async def unfinished(self, profile: str, limit: int) -> list[View]:
        """See `HistoryStore.unfinished`."""
        return await self._newest(profile, None, limit, lambda view: not view.finished, MOST_LOOKED_AT)

    async def delete(self, key: Key, now: datetime) -> None:
        """See `HistoryStore.delete`."""

        days: set[int] = set()

        async def newest() -> int:
            found = await self._found(key)
            days.update(day for playback in found.playbacks for day in playback.days)
            return found.newest_us

        async def mark(until_us: int) -> None:
            await self._cassandra.run(_MARK_VIEW, until_us, until_us, key.profile, key.title)

        until_us = await _marked(_us(now), newest, mark)
        await self._unlist(key, days, until_us)
        await self._cassandra.run(_DROP_PLAYBACKS, key.profile, key.title, until_us)

    async def clear(self, profile: str, now: datetime) -> None:
        """See `HistoryStore.clear`."""
        years: set[int] = set()
        titles: set[str] = set()

        async def newest() -> int:
            years.update((await self._profile(profile)).years)
            entries = [entry async for entry in self._entries(profile, sorted(years))]
            titles.update(title for _, title, _ in entries)
            return max((start_us for _, _, start_us in entries), default=-1)

        async def mark(until_us: int) -> None:
            await self._cassandra.run(_MARK_PROFILE, until_us, until_us, profile)

        until_us = await _marked(_us(now), newest, mark)
        # What they are found by goes last: a clearing that was cut off finds them again.
        await self._all((_DROP_PLAYBACKS, (profile, title, until_us)) for title in titles)
        await self._all((_DROP_DAYS, (until_us, profile, year)) for year in years)
        await self._all((_DROP_YEAR, (until_us, profile, year)) for year in years)

    async def _found(self, key: Key) -> _Found:
        profile, rows = await asyncio.gather(
            self._profile(key.profile), self._cassandra.run(_VIEW, key.profile, key.title)
        )
        return _found(key, rows, profile.cleared_until_us)

    async def _profile(self, profile: str) -> _Profile:
        rows = await self._cassandra.run(_PROFILE, profile)
        cleared_until_us = next((cleared for _, cleared in rows if cleared is not None), -1)
        years = sorted((year for year, _ in rows if year is not None), reverse=True)
        return _Profile(cleared_until_us=cleared_until_us, years=years)

    async def _merge(self, key: Key) -> None:
        """Merge the playbacks of a view into its newest.

        What is deleted is asked after the newest was stored: a deletion that did not see it has left its mark
        before, so that nothing older is saved from it.
        """
        rows = await self._cassandra.run(_VIEW, key.profile, key.title)
        found = _found(key, rows, (await self._profile(key.profile)).cleared_until_us)
        newest = found.playbacks[0] if found.playbacks else None
        older = [one for one in found.playbacks if newest and one.start_us < newest.start_us]
        if newest is None or not older:
            return
        await self._cassandra.batch([*newest.with_only(found.watched), *newest.begun(found.first_watch_us)])
        for playback in older:
            await self._unlist(key, playback.days, playback.start_us)
            await self._cassandra.batch(playback.gone())

    async def _list(self, key: Key, day: int, start_us: int) -> None:
        year = _year(day)
        await asyncio.gather(
            self._cassandra.run(_SET_YEAR, key.profile, year, start_us),
            self._cassandra.run(_SET_DAY, key.profile, year, day, key.title, start_us, start_us),
        )

    async def _unlist(self, key: Key, days: Iterable[int], until_us: int) -> None:
        await self._all((_DROP_ENTRY, (until_us, key.profile, _year(day), day, key.title)) for day in days)

    async def _all(self, statements: Iterable[Statement]) -> None:
        """Run independent statements, a few at a time."""
        todo = list(statements)
        for at in range(0, len(todo), _AT_ONCE):
            await asyncio.gather(
                *(self._cassandra.run(cql, *values) for cql, values in todo[at : at + _AT_ONCE])
            )

    async def _newest(
        self,
        profile: str,
        after: tuple[datetime, str] | None,
        limit: int,
        wanted: Callable[[View], bool],
        most: int | None = None,
    ) -> list[View]:
        """Views day by day, the newest first; what a day lists but was watched again later is passed."""
        about = await self._profile(profile)
        last_day = None if after is None else _us(after[0]) // _DAY_US
        known: dict[str, View | None] = {}
        views: list[View] = []
        async for days in self._days(profile, about.years, last_day, limit):
            new = {title for titles in days.values() for title in titles} - known.keys()
            known |= await self._read(profile, sorted(new), about.cleared_until_us)
            for day, titles in days.items():
                of_day = [view for title in titles if (view := known[title]) is not None]
                views += sorted(
                    (
                        view
                        for view in of_day
                        if _day(view) == day and wanted(view) and _is_after(view, after)
                    ),
                    key=_place,
                    reverse=True,
                )
            if len(views) >= limit or (most is not None and len(known) >= most):
                break
        return views[:limit]

    async def _days(
        self, profile: str, years: Sequence[int], last_day: int | None, titles: int
    ) -> AsyncIterator[dict[int, list[str]]]:
        """Whole days with their titles, the newest first, in portions of at least so many titles."""
        days: dict[int, list[str]] = {}
        async for day, title, _ in self._entries(profile, years, last_day):
            if day not in days and sum(map(len, days.values())) >= titles:
                yield days
                days = {}
            days.setdefault(day, []).append(title)
        yield days

    async def _entries(
        self, profile: str, years: Sequence[int], last_day: int | None = None
    ) -> AsyncIterator[tuple[int, str, int]]:
        """Days and titles, the newest day first, with the start of the last playback then."""
        for year in years:
            if last_day is not None and year > _year(last_day):
                continue
            before = (_LAST >> 32 if last_day is None else last_day + 1, "")
            while rows := await self._cassandra.run(_DAYS, profile, year, *before):
                for row in rows:
                    yield row[0], row[1], row[2]
                if len(rows) < _DAYS_AT_ONCE:
                    break
                before = rows[-1][0], rows[-1][1]

    async def _read(
        self, profile: str, titles: Sequence[str], cleared_until_us: int
    ) -> dict[str, View | None]:
        rows_of: dict[str, list[tuple[Any, ...]]] = {title: [] for title in titles}
        parts = [titles[at : at + _VIEWS_AT_ONCE] for at in range(0, len(titles), _VIEWS_AT_ONCE)]
        for rows in await asyncio.gather(*(self._cassandra.run(_VIEWS, profile, part) for part in parts)):
            for row in rows:
                rows_of[row[0]].append(row)
        return {
            title: _found(Key(profile=profile, title=title), rows, cleared_until_us).view()
            for title, rows in rows_of.items()
        }


async def _marked(
    now_us: int, newest: Callable[[], Awaitable[int]], mark: Callable[[int], Awaitable[None]]
) -> int:
    """Leave a mark that covers all that was stored before it; until when it reaches.

    Looked at again once it is stored: a playback that began beside it may have been merged with older ones.
    """
    until_us = max(now_us, await newest())
    while True:
        await mark(until_us)
        later_us = await newest()
        if later_us <= until_us:
            return until_us
        until_us = later_us


def _changes(playback: _Playback, report: Report) -> list[Statement]:
    """What a report adds to the row of its playback."""
    changes = playback.begun(_us(report.receive_time))
    changes += playback.with_only(bounded(union(playback.watched.items(), report.intervals)))
    sequence, position = report.order.sequence, _packed(report)
    if playback.sequence is None or (playback.sequence, playback.position or b"") < (sequence, position):
        changes.append((_SET_POSITION, (sequence, position, *playback.at)))
    return changes


def _found(key: Key, rows: Sequence[tuple[Any, ...]], cleared_until_us: int) -> _Found:
    """A view from the rows of its partition, without those whose playbacks were deleted."""
    marks = [row[3] for row in rows if row[3] is not None]
    deleted_until_us = max([cleared_until_us, *marks])
    playbacks = [
        _Playback(
            key=key,
            start_us=start_us,
            lease=lease,
            position=position,
            sequence=sequence,
            first_watch_us=first_watch_us,
            watched=dict(watched.items()) if watched else {},
            days=frozenset(days or ()),
        )
        for _, start_us, lease, _, position, sequence, first_watch_us, watched, days in rows
        if start_us is not None and start_us > deleted_until_us
    ]
    return _Found(deleted_until_us=deleted_until_us, playbacks=playbacks)


#: Position, duration and device of a playback, so that of equal sequence numbers the greater value is the one
#: that `View.merged` prefers: the first hearing, then the greater position, duration and device.
_POSITION = struct.Struct(">QQQ")


def _packed(report: Report) -> bytes:
    head = _POSITION.pack(_LAST - _us(report.receive_time), report.position_ns, report.duration_ns)
    return head + report.device.encode()


def _unpacked(position: bytes) -> tuple[int, int, int, str]:
    inverse_us, position_ns, duration_ns = _POSITION.unpack_from(position)
    return _LAST - inverse_us, position_ns, duration_ns, position[_POSITION.size :].decode()


def _place(view: View) -> tuple[datetime, str]:
    """Where it stands in a list."""
    return view.last_watch_time, view.key.title


def _is_after(view: View, after: tuple[datetime, str] | None) -> bool:
    return after is None or _place(view) < after


def _day(view: View) -> int:
    return _us(view.last_watch_time) // _DAY_US


def _year(day: int) -> int:
    return (_EPOCH + timedelta(days=day)).year


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
