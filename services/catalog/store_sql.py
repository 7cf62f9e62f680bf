"""The catalog's store on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Table, delete, insert, or_, select, tuple_, update

from services.catalog import rows
from services.catalog.model import Details, Media, Rendition, Segment, Sweep, Title, Viewer
from services.catalog.store import Session
from services.catalog.store_sql_series import SqlSeries, add, upsert
from services.catalog.tables import (
    EPISODES,
    MEDIA,
    MEDIA_DETAILS,
    OUTBOX,
    RENDITIONS,
    SEGMENTS,
    SWEEPS,
    TITLES,
)
from services.catalog.text import TitleText
from services.runtime.idempotency import replay_or_run
from services.runtime.sql import Database

T = TypeVar("T")

_READY_STEP = 256


class SqlStore:
    """A `Store` in one SQL database."""

    def __init__(self, database: Database) -> None:
        """The database must be migrated."""
        self._database = database

    async def write(self, fn: Callable[[Session], T]) -> T:
        """See `Store.write`."""
        return await self._database.write(lambda connection: fn(SqlSession(connection)))

    async def read(self, fn: Callable[[Session], T]) -> T:
        """See `Store.read`."""
        return await self._database.read(lambda connection: fn(SqlSession(connection)))


class SqlSession(SqlSeries):
    """A `Session` on a connection within its transaction; see there for the methods."""

    def title(self, title_id: str) -> Title | None:
        """See `Session.title`."""
        row = self._connection.execute(rows.PLACED.where(TITLES.c.title_id == title_id)).first()
        return None if row is None else rows.title(row)

    def titles(
        self,
        viewer: Viewer,
        after: tuple[datetime, str] | None,
        limit: int,
        *,
        without_episodes: bool = False,
    ) -> list[Title]:
        """See `Session.titles`."""
        query = rows.PLACED.where(TITLES.c.delete_us.is_(None))
        if not viewer.sees_all:
            query = query.where(or_(rows.VISIBLE, TITLES.c.owner == viewer.subject))
        if without_episodes:
            query = query.where(EPISODES.c.title_id.is_(None))
        if after is not None:
            query = query.where(tuple_(TITLES.c.create_us, TITLES.c.title_id) < (rows.us(after[0]), after[1]))
        query = query.order_by(TITLES.c.create_us.desc(), TITLES.c.title_id.desc()).limit(limit)
        return [rows.title(row) for row in self._connection.execute(query)]

    def once(
        self, scope: str, request_id: str, request: bytes, now: datetime, create: Callable[[], str]
    ) -> str:
        """See `Session.once`."""
        return replay_or_run(
            self._connection,
            scope,
            request_id,
            request,
            lambda: create().encode(),
            now_ms=rows.us(now) // 1000,
        ).decode()

    def save_title(self, title: Title) -> None:
        """See `Session.save_title`."""
        upsert(self._connection, TITLES, rows.title_row(title), "title_id")
        sent = {"title_id": title.title_id, "version": title.version, "change_us": rows.us(title.update_time)}
        upsert(self._connection, OUTBOX, sent, "title_id")

    def media(self, title_id: str, job: str) -> Media | None:
        """See `Session.media`."""
        row = self._connection.execute(select(MEDIA).where(_made(MEDIA, title_id, job))).first()
        if row is None:
            return None
        renditions = self._connection.execute(
            select(RENDITIONS).where(_made(RENDITIONS, title_id, job)).order_by(RENDITIONS.c.position)
        )
        return Media(**row._mapping, renditions=tuple(rows.rendition(found) for found in renditions))

    def save_media(self, media: Media, changed: Sequence[Rendition]) -> None:
        """See `Session.save_media`."""
        upsert(
            self._connection,
            MEDIA,
            {column.name: getattr(media, column.name) for column in MEDIA.c},
            "title_id",
            "job",
        )
        made = update(RENDITIONS).where(_made(RENDITIONS, media.title_id, media.job))
        for rendition in changed:
            one = made.where(RENDITIONS.c.rendition_id == rendition.rendition_id)
            self._connection.execute(one.values(rows.rendition_row(rendition)))

    def replace_renditions(self, media: Media) -> None:
        """See `Session.replace_renditions`."""
        self._connection.execute(delete(RENDITIONS).where(_made(RENDITIONS, media.title_id, media.job)))
        made = {"title_id": media.title_id, "job": media.job}
        for position, rendition in enumerate(media.renditions):
            row = {**made, "position": position, **rows.rendition_row(rendition)}
            self._connection.execute(insert(RENDITIONS).values(row))

    def details(self, title_id: str, job: str) -> Details:
        """See `Session.details`."""
        query = select(MEDIA_DETAILS).where(_made(MEDIA_DETAILS, title_id, job))
        row = self._connection.execute(query).first()
        if row is None:
            return Details()
        return Details(
            frames=row.frames,
            starts=rows.unpacked(row.starts),
            highlights=row.highlights,
            extras=row.extras,
        )

    def save_details(self, title_id: str, job: str, details: Details) -> None:
        """See `Session.save_details`."""
        parts = {
            "frames": details.frames,
            "starts": rows.packed(details.starts),
            "highlights": details.highlights,
            "extras": details.extras,
        }
        row = {"title_id": title_id, "job": job, **parts}
        upsert(self._connection, MEDIA_DETAILS, row, "title_id", "job")

    def save_grid(self, title_id: str, job: str, starts: Sequence[int], highlights: bytes) -> None:
        """See `Session.save_grid`."""
        change = update(MEDIA_DETAILS).where(_made(MEDIA_DETAILS, title_id, job))
        self._connection.execute(change.values(starts=rows.packed(starts), highlights=highlights))

    def segments(self, title_id: str, job: str, rendition_id: str, first: int, limit: int) -> list[Segment]:
        """See `Session.segments`."""
        columns = [SEGMENTS.c[name] for name in Segment.__dataclass_fields__]
        query = select(*columns).where(_of(title_id, job, rendition_id), SEGMENTS.c.number >= first)
        found = self._connection.execute(query.order_by(SEGMENTS.c.number).limit(limit))
        return [Segment(**row._mapping) for row in found]

    def published(
        self, title_id: str, job: str, rendition_id: str, numbers: Sequence[int]
    ) -> Mapping[int, str]:
        """See `Session.published`."""
        query = select(SEGMENTS.c.number, SEGMENTS.c.object_key)
        query = query.where(_of(title_id, job, rendition_id), SEGMENTS.c.number.in_(numbers))
        return {row.number: row.object_key for row in self._connection.execute(query)}

    def add_segments(self, title_id: str, job: str, rendition_id: str, segments: Sequence[Segment]) -> None:
        """See `Session.add_segments`."""
        where = {"title_id": title_id, "job": job, "rendition_id": rendition_id}
        if not segments:
            return
        add(self._connection, SEGMENTS, [{**where, **vars(segment)} for segment in segments])

    def ready_from(self, title_id: str, job: str, rendition_id: str, number: int) -> int:
        """See `Session.ready_from`; every segment is passed once in the life of its rendition."""
        query = select(SEGMENTS.c.number).where(_of(title_id, job, rendition_id)).order_by(SEGMENTS.c.number)
        while True:
            step = query.where(SEGMENTS.c.number >= number).limit(_READY_STEP)
            found = list(self._connection.execute(step).scalars())
            run = sum(1 for index, value in enumerate(found) if value == number + index)
            number += run
            if run < _READY_STEP:
                return number

    def unsent(self, now: datetime, limit: int) -> list[Title]:
        """See `Session.unsent`."""
        query = rows.PLACED.join(OUTBOX, OUTBOX.c.title_id == TITLES.c.title_id)
        query = query.where(OUTBOX.c.change_us <= rows.us(now))
        return [
            rows.title(row)
            for row in self._connection.execute(query.order_by(OUTBOX.c.change_us).limit(limit))
        ]

    def put_off(self, title_id: str, version: int, until: datetime) -> None:
        """See `Session.put_off`."""
        mine = (OUTBOX.c.title_id == title_id, OUTBOX.c.version == version)
        self._connection.execute(update(OUTBOX).where(*mine).values(change_us=rows.us(until)))

    def mark_sent(self, title_id: str, version: int) -> None:
        """See `Session.mark_sent`."""
        self._connection.execute(
            delete(OUTBOX).where(OUTBOX.c.title_id == title_id, OUTBOX.c.version <= version)
        )

    def stale_artwork(self, limit: int) -> list[Title]:
        """See `Session.stale_artwork`."""
        stale = TITLES.c.artwork_stale & TITLES.c.delete_us.is_(None)
        return [rows.title(row) for row in self._connection.execute(rows.PLACED.where(stale).limit(limit))]

    def add_sweep(self, sweep: Sweep) -> None:
        """See `Session.add_sweep`."""
        row = {
            "title_id": sweep.title_id,
            "job": sweep.job,
            "due_us": rows.us(sweep.due_time),
            "rounds": sweep.rounds,
        }
        upsert(self._connection, SWEEPS, row, "title_id", "job")

    def next_sweep(self) -> Sweep | None:
        """See `Session.next_sweep`."""
        row = self._connection.execute(select(SWEEPS).order_by(SWEEPS.c.due_us).limit(1)).first()
        if row is None:
            return None
        return Sweep(title_id=row.title_id, job=row.job, due_time=rows.time(row.due_us), rounds=row.rounds)

    def remove_sweep(self, sweep: Sweep) -> None:
        """See `Session.remove_sweep`."""
        key = (SWEEPS.c.title_id == sweep.title_id) & (SWEEPS.c.job == sweep.job)
        self._connection.execute(delete(SWEEPS).where(key))

    def forget_segments(self, sweep: Sweep, limit: int) -> int:
        """See `Session.forget_segments`."""
        key = tuple_(SEGMENTS.c.title_id, SEGMENTS.c.job, SEGMENTS.c.rendition_id, SEGMENTS.c.number)
        some = select(*key.clauses).where(SEGMENTS.c.title_id == sweep.title_id)
        if sweep.job:
            some = some.where(SEGMENTS.c.job == sweep.job)
        return self._connection.execute(delete(SEGMENTS).where(key.in_(some.limit(limit)))).rowcount

    def forget_media(self, sweep: Sweep) -> None:
        """See `Session.forget_media`."""
        title_id = sweep.title_id
        if sweep.job:
            for table in (MEDIA_DETAILS, RENDITIONS):
                self._connection.execute(delete(table).where(_made(table, title_id, sweep.job)))
            return
        for table in (MEDIA, MEDIA_DETAILS, RENDITIONS):
            self._connection.execute(delete(table).where(table.c.title_id == title_id))
        blank = {**rows.text_row(TitleText(display_name="")), "error": None, "artwork": ""}
        self._connection.execute(update(TITLES).where(TITLES.c.title_id == title_id).values(blank))


def _made(table: Table, title_id: str, job: str) -> Any:
    """Rows of what a job made of a title."""
    return (table.c.title_id == title_id) & (table.c.job == job)


def _of(title_id: str, job: str, rendition_id: str) -> Any:
    return _made(SEGMENTS, title_id, job) & (SEGMENTS.c.rendition_id == rendition_id)
