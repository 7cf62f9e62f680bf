"""The store of history on SQLite or PostgreSQL: one row per view, merged in a transaction."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from services.history.intervals import Intervals
from services.history.model import Key, Order, Report, View
from services.history.tables import DELETIONS, VIEWS
from services.runtime.sql import Database, Retry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALL_TITLES = ""

# Built once: building an expression anew for each call took half of the time of a read.
# The names of parameters differ from the columns', which an UPDATE keeps for its values.
_OF_PROFILE = VIEWS.c.profile == bindparam("of_profile")
_IS = _OF_PROFILE & (VIEWS.c.title == bindparam("of_title"))
_READ = select(VIEWS).where(_IS)
_INSERT = insert(VIEWS)
_UPDATE = update(VIEWS).where(_IS).values({column.name: bindparam(column.name) for column in VIEWS.c})
_DELETED_UNTIL = select(func.max(DELETIONS.c.until_us)).where(
    DELETIONS.c.profile == bindparam("of_profile"),
    or_(DELETIONS.c.title == bindparam("of_title"), DELETIONS.c.title == _ALL_TITLES),
)


def _newest(query: Select[Any]) -> Select[Any]:
    return query.order_by(VIEWS.c.last_watch_us.desc(), VIEWS.c.title.desc()).limit(bindparam("most"))


_VIEWS = _newest(select(VIEWS).where(_OF_PROFILE))
_VIEWS_AFTER = _newest(
    select(VIEWS).where(
        _OF_PROFILE,
        tuple_(VIEWS.c.last_watch_us, VIEWS.c.title)
        < tuple_(bindparam("after_us"), bindparam("after_title")),
    )
)
_UNFINISHED = _newest(select(VIEWS).where(_OF_PROFILE, VIEWS.c.finished.is_(False)))


class SqlHistory:
    """A `HistoryStore` in one SQL database."""

    def __init__(self, database: Database) -> None:
        """The database must be migrated."""
        self._database = database

    async def record(self, report: Report) -> View | None:
        """See `HistoryStore.record`."""

        def run(connection: Connection) -> View | None:
            until = connection.execute(_DELETED_UNTIL, _of(report.key)).scalar()
            if _us(report.order.start_time) <= (until or -1):
                return None
            old, new = _read(connection, report.key), View.of(report)
            if old is None:
                try:
                    connection.execute(_INSERT, _row(new))
                except IntegrityError as error:
                    raise Retry from error  # another report was first; the transaction merges with it
                return new
            new = old.merged(new)
            if new != old:
                connection.execute(_UPDATE, _row(new) | _of(report.key))
            return new

        return await self._database.write(run)

    async def view(self, key: Key) -> View | None:
        """See `HistoryStore.view`."""
        return await self._database.read(lambda connection: _read(connection, key))

    async def views(self, profile: str, after: tuple[datetime, str] | None, limit: int) -> list[View]:
        """See `HistoryStore.views`."""
        values = {"of_profile": profile, "most": limit}
        if after is None:
            return await self._list(_VIEWS, values)
        return await self._list(_VIEWS_AFTER, values | {"after_us": _us(after[0]), "after_title": after[1]})

    async def unfinished(self, profile: str, limit: int) -> list[View]:
        """See `HistoryStore.unfinished`."""
        return await self._list(_UNFINISHED, {"of_profile": profile, "most": limit})

    async def delete(self, key: Key, now: datetime) -> None:
        """See `HistoryStore.delete`."""
        await self._database.write(lambda connection: _delete(connection, key.profile, key.title, now))

    async def clear(self, profile: str, now: datetime) -> None:
        """See `HistoryStore.clear`."""
        await self._database.write(lambda connection: _delete(connection, profile, _ALL_TITLES, now))

    async def _list(self, query: Select[Any], values: dict[str, Any]) -> list[View]:
        return await self._database.read(
            lambda connection: [_view(row) for row in connection.execute(query, values)]
        )


def _delete(connection: Connection, profile: str, title: str, now: datetime) -> None:
    """Delete the rows and leave a mark, not before the start of any playback that was recorded."""
    gone = _OF_PROFILE if title == _ALL_TITLES else _IS
    which = _of(Key(profile=profile, title=title))
    newest = connection.execute(select(func.max(VIEWS.c.start_us)).where(gone), which).scalar() or 0
    connection.execute(delete(VIEWS).where(gone), which)
    mark = (DELETIONS.c.profile == profile) & (DELETIONS.c.title == title)
    old = connection.execute(select(DELETIONS.c.until_us).where(mark)).scalar() or 0
    connection.execute(delete(DELETIONS).where(mark))
    until = max(_us(now), newest, old)
    connection.execute(insert(DELETIONS).values(profile=profile, title=title, until_us=until))


def _of(key: Key) -> dict[str, str]:
    return {"of_profile": key.profile, "of_title": key.title}


def _read(connection: Connection, key: Key) -> View | None:
    row = connection.execute(_READ, _of(key)).first()
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
