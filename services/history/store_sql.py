"""The store of history on SQLite or PostgreSQL: one row per view, merged in a transaction."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from services.history.intervals import Intervals
from services.history.model import Key, Order, Report, View
from services.history.tables import DELETIONS, VIEWS
from services.runtime.sql import Database, Retry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALL_TITLES = ""


class SqlHistory:
    """A `HistoryStore` in one SQL database."""

    def __init__(self, database: Database) -> None:
        """The database must be migrated."""
        self._database = database

    async def record(self, report: Report) -> View | None:
        """See `HistoryStore.record`."""

        def run(connection: Connection) -> View | None:
            deleted = DELETIONS.c.title.in_([report.key.title, _ALL_TITLES])
            until = select(func.max(DELETIONS.c.until_us)).where(
                DELETIONS.c.profile == report.key.profile, deleted
            )
            if _us(report.order.start_time) <= (connection.execute(until).scalar() or -1):
                return None
            old, new = _read(connection, report.key), View.of(report)
            if old is None:
                try:
                    connection.execute(insert(VIEWS).values(_row(new)))
                except IntegrityError as error:
                    raise Retry from error  # another report was first; the transaction merges with it
                return new
            new = old.merged(new)
            if new != old:
                connection.execute(update(VIEWS).where(_is(report.key)).values(_row(new)))
            return new

        return await self._database.write(run)

    async def view(self, key: Key) -> View | None:
        """See `HistoryStore.view`."""
        return await self._database.read(lambda connection: _read(connection, key))

    async def views(self, profile: str, after: tuple[datetime, str] | None, limit: int) -> list[View]:
        """See `HistoryStore.views`."""
        query = select(VIEWS).where(VIEWS.c.profile == profile)
        if after is not None:
            query = query.where(tuple_(VIEWS.c.last_watch_us, VIEWS.c.title) < (_us(after[0]), after[1]))
        return await self._newest(query, limit)

    async def unfinished(self, profile: str, limit: int) -> list[View]:
        """See `HistoryStore.unfinished`."""
        query = select(VIEWS).where(VIEWS.c.profile == profile, VIEWS.c.finished.is_(False))
        return await self._newest(query, limit)

    async def delete(self, key: Key, now: datetime) -> None:
        """See `HistoryStore.delete`."""
        await self._database.write(lambda connection: _delete(connection, key.profile, key.title, now))

    async def clear(self, profile: str, now: datetime) -> None:
        """See `HistoryStore.clear`."""
        await self._database.write(lambda connection: _delete(connection, profile, _ALL_TITLES, now))

    async def _newest(self, query: Select[Any], limit: int) -> list[View]:
        query = query.order_by(VIEWS.c.last_watch_us.desc(), VIEWS.c.title.desc()).limit(limit)
        return await self._database.read(lambda connection: [_view(row) for row in connection.execute(query)])


def _delete(connection: Connection, profile: str, title: str, now: datetime) -> None:
    """Delete the rows and leave a mark, not before the start of any playback that was recorded."""
    gone = (VIEWS.c.profile == profile) if title == _ALL_TITLES else _is(Key(profile=profile, title=title))
    newest = connection.execute(select(func.max(VIEWS.c.start_us)).where(gone)).scalar() or 0
    connection.execute(delete(VIEWS).where(gone))
    mark = (DELETIONS.c.profile == profile) & (DELETIONS.c.title == title)
    old = connection.execute(select(DELETIONS.c.until_us).where(mark)).scalar() or 0
    connection.execute(delete(DELETIONS).where(mark))
    until = max(_us(now), newest, old)
    connection.execute(insert(DELETIONS).values(profile=profile, title=title, until_us=until))


def _is(key: Key) -> Any:
    return (VIEWS.c.profile == key.profile) & (VIEWS.c.title == key.title)


def _read(connection: Connection, key: Key) -> View | None:
    row = connection.execute(select(VIEWS).where(_is(key))).first()
    return None if row is None else _view(row)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _packed(intervals: Intervals) -> bytes:
    return struct.pack(f"<{2 * len(intervals)}q", *(at for interval in intervals for at in interval))


def _unpacked(data: bytes) -> Intervals:
    return tuple(struct.iter_unpack("<qq", data))


def _row(view: View) -> dict[str, Any]:
    return {
        "profile": view.key.profile,
        "title": view.key.title,
        "start_us": _us(view.order.start_time),
        "lease": view.order.lease,
        "sequence": view.order.sequence,
        "position_ns": view.position_ns,
        "intervals": _packed(view.intervals),
        "duration_ns": view.duration_ns,
        "device": view.device,
        "first_watch_us": _us(view.first_watch_time),
        "last_watch_us": _us(view.last_watch_time),
        "finished": view.finished,
    }


def _view(row: Row[Any]) -> View:
    return View(
        key=Key(profile=row.profile, title=row.title),
        order=Order(start_time=_time(row.start_us), lease=row.lease, sequence=row.sequence),
        position_ns=row.position_ns,
        intervals=_unpacked(row.intervals),
        duration_ns=row.duration_ns,
        device=row.device,
        first_watch_time=_time(row.first_watch_us),
        last_watch_time=_time(row.last_watch_us),
    )
