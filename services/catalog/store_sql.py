"""The catalog's store on SQLite or PostgreSQL."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, delete, exists, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from services.catalog.model import (
    Details,
    InitSegment,
    Kind,
    Media,
    Rendition,
    Segment,
    Sweep,
    Title,
    TitleText,
    Viewer,
)
from services.catalog.store import Session
from services.catalog.tables import MEDIA, MEDIA_DETAILS, OUTBOX, RENDITIONS, SEGMENTS, SWEEPS, TITLES
from services.runtime.idempotency import replay_or_run
from services.runtime.sql import Database, Retry

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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


class SqlSession:
    """A `Session` on a connection within its transaction; see there for the methods."""

    def __init__(self, connection: Connection) -> None:
        """Commits nothing itself."""
        self._connection = connection

    def title(self, title_id: str) -> Title | None:
        """See `Session.title`."""
        row = self._connection.execute(select(TITLES).where(TITLES.c.title_id == title_id)).first()
        return None if row is None else _title(row)

    def titles(self, viewer: Viewer, after: tuple[datetime, str] | None, limit: int) -> list[Title]:
        """See `Session.titles`."""
        query = select(TITLES).where(TITLES.c.delete_us.is_(None))
        if not viewer.sees_all:
            query = query.where(or_(TITLES.c.playable_us.is_not(None), TITLES.c.owner == viewer.subject))
        if after is not None:
            query = query.where(tuple_(TITLES.c.create_us, TITLES.c.title_id) < (_us(after[0]), after[1]))
        query = query.order_by(TITLES.c.create_us.desc(), TITLES.c.title_id.desc()).limit(limit)
        return [_title(row) for row in self._connection.execute(query)]

    def create_once(self, scope: str, request_id: str, request: bytes, title: Title) -> str:
        """See `Session.create_once`."""

        def create() -> bytes:
            self.save_title(title)
            return title.title_id.encode()

        now_ms = _us(title.create_time) // 1000
        return replay_or_run(self._connection, scope, request_id, request, create, now_ms=now_ms).decode()

    def save_title(self, title: Title) -> None:
        """See `Session.save_title`."""
        self._upsert(TITLES, _title_row(title), "title_id")
        sent = {"title_id": title.title_id, "version": title.version, "change_us": _us(title.update_time)}
        self._upsert(OUTBOX, sent, "title_id")

    def media(self, title_id: str) -> Media | None:
        """See `Session.media`."""
        row = self._connection.execute(select(MEDIA).where(MEDIA.c.title_id == title_id)).first()
        if row is None:
            return None
        renditions = self._connection.execute(
            select(RENDITIONS).where(RENDITIONS.c.title_id == title_id).order_by(RENDITIONS.c.position)
        )
        return Media(**row._mapping, renditions=tuple(_rendition(found) for found in renditions))

    def save_media(self, media: Media, changed: Sequence[Rendition]) -> None:
        """See `Session.save_media`."""
        self._upsert(MEDIA, {column.name: getattr(media, column.name) for column in MEDIA.c}, "title_id")
        for rendition in changed:
            key = (RENDITIONS.c.title_id == media.title_id) & (
                RENDITIONS.c.rendition_id == rendition.rendition_id
            )
            self._connection.execute(update(RENDITIONS).where(key).values(_rendition_row(rendition)))

    def replace_renditions(self, media: Media) -> None:
        """See `Session.replace_renditions`."""
        self._connection.execute(delete(RENDITIONS).where(RENDITIONS.c.title_id == media.title_id))
        for position, rendition in enumerate(media.renditions):
            row = {"title_id": media.title_id, "position": position, **_rendition_row(rendition)}
            self._connection.execute(insert(RENDITIONS).values(row))

    def details(self, title_id: str) -> Details:
        """See `Session.details`."""
        row = self._connection.execute(
            select(MEDIA_DETAILS).where(MEDIA_DETAILS.c.title_id == title_id)
        ).first()
        if row is None:
            return Details()
        return Details(
            frames=row.frames,
            starts=_unpacked(row.starts),
            highlights=row.highlights,
            extras=row.extras,
        )

    def save_details(self, title_id: str, details: Details) -> None:
        """See `Session.save_details`."""
        parts = {
            "frames": details.frames,
            "starts": _packed(details.starts),
            "highlights": details.highlights,
            "extras": details.extras,
        }
        self._upsert(MEDIA_DETAILS, {"title_id": title_id, **parts}, "title_id")

    def save_grid(self, title_id: str, starts: Sequence[int], highlights: bytes) -> None:
        """See `Session.save_grid`."""
        change = update(MEDIA_DETAILS).where(MEDIA_DETAILS.c.title_id == title_id)
        self._connection.execute(change.values(starts=_packed(starts), highlights=highlights))

    def segments(self, title_id: str, job: str, rendition_id: str, first: int, limit: int) -> list[Segment]:
        """See `Session.segments`."""
        columns = [SEGMENTS.c[name] for name in Segment.__dataclass_fields__]
        query = select(*columns).where(_of(title_id, job, rendition_id), SEGMENTS.c.number >= first)
        rows = self._connection.execute(query.order_by(SEGMENTS.c.number).limit(limit))
        return [Segment(**row._mapping) for row in rows]

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
        try:
            self._connection.execute(insert(SEGMENTS), [{**where, **vars(segment)} for segment in segments])
        except IntegrityError as error:
            raise Retry from error  # another writer was first; the transaction looks again

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

    def unsent(self, limit: int) -> list[Title]:
        """See `Session.unsent`."""
        query = select(TITLES).join(OUTBOX, OUTBOX.c.title_id == TITLES.c.title_id)
        return [
            _title(row) for row in self._connection.execute(query.order_by(OUTBOX.c.change_us).limit(limit))
        ]

    def mark_sent(self, title_id: str, version: int) -> None:
        """See `Session.mark_sent`."""
        self._connection.execute(
            delete(OUTBOX).where(OUTBOX.c.title_id == title_id, OUTBOX.c.version <= version)
        )

    def add_sweep(self, sweep: Sweep) -> None:
        """See `Session.add_sweep`."""
        row = {
            "title_id": sweep.title_id,
            "job": sweep.job,
            "due_us": _us(sweep.due_time),
            "rounds": sweep.rounds,
        }
        self._upsert(SWEEPS, row, "title_id", "job")

    def next_sweep(self) -> Sweep | None:
        """See `Session.next_sweep`."""
        row = self._connection.execute(select(SWEEPS).order_by(SWEEPS.c.due_us).limit(1)).first()
        if row is None:
            return None
        return Sweep(title_id=row.title_id, job=row.job, due_time=_time(row.due_us), rounds=row.rounds)

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

    def forget_media(self, title_id: str) -> None:
        """See `Session.forget_media`."""
        for table in (MEDIA, MEDIA_DETAILS, RENDITIONS):
            self._connection.execute(delete(table).where(table.c.title_id == title_id))
        blank = {"display_name": "", "description": "", "genres": "[]", "release_year": 0, "error": None}
        self._connection.execute(update(TITLES).where(TITLES.c.title_id == title_id).values(blank))

    def _upsert(self, table: Any, row: dict[str, Any], *key: str) -> None:
        """Insert or update by key; a plain update first, since most rows are there."""
        where = [table.c[name] == row[name] for name in key]
        if self._connection.execute(select(exists().where(*where))).scalar():
            self._connection.execute(update(table).where(*where).values(row))
        else:
            self._connection.execute(insert(table).values(row))


def _of(title_id: str, job: str, rendition_id: str) -> Any:
    return (
        (SEGMENTS.c.title_id == title_id)
        & (SEGMENTS.c.job == job)
        & (SEGMENTS.c.rendition_id == rendition_id)
    )


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _maybe_us(moment: datetime | None) -> int | None:
    return None if moment is None else _us(moment)


def _maybe_time(us: int | None) -> datetime | None:
    return None if us is None else _time(us)


def _packed(starts: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(starts)}q", *starts)


def _unpacked(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}q", data)


def _title_row(title: Title) -> dict[str, Any]:
    return {
        "title_id": title.title_id,
        "owner": title.owner,
        "display_name": title.text.display_name,
        "description": title.text.description,
        "release_year": title.text.release_year,
        "genres": json.dumps(title.text.genres, ensure_ascii=False),
        "version": title.version,
        "job": title.job,
        "duration_ns": title.duration_ns,
        "error": title.error,
        "create_us": _us(title.create_time),
        "update_us": _us(title.update_time),
        "playable_us": _maybe_us(title.playable_time),
        "complete_us": _maybe_us(title.complete_time),
        "delete_us": _maybe_us(title.delete_time),
    }


def _title(row: Row[Any]) -> Title:
    return Title(
        title_id=row.title_id,
        owner=row.owner,
        text=TitleText(
            display_name=row.display_name,
            description=row.description,
            release_year=row.release_year,
            genres=tuple(json.loads(row.genres)),
        ),
        version=row.version,
        job=row.job,
        duration_ns=row.duration_ns,
        error=row.error,
        create_time=_time(row.create_us),
        update_time=_time(row.update_us),
        playable_time=_maybe_time(row.playable_us),
        complete_time=_maybe_time(row.complete_us),
        delete_time=_maybe_time(row.delete_us),
    )


def _rendition_row(rendition: Rendition) -> dict[str, Any]:
    init = rendition.init
    return {
        "rendition_id": rendition.rendition_id,
        "kind": rendition.kind.value,
        "h264": rendition.h264,
        "height": rendition.height,
        "encoded": rendition.encoded,
        "init_object_key": init and init.object_key,
        "init_sha256": init and init.sha256,
        "codecs": init and init.codecs,
        "timescale": init and init.timescale,
        "published_count": rendition.published_count,
        "ready_count": rendition.ready_count,
        "size_sum_bytes": rendition.size_sum_bytes,
        "duration_sum_ticks": rendition.duration_sum_ticks,
        "peak_bits_per_second": rendition.peak_bits_per_second,
        "last_number": rendition.last_number,
    }


def _rendition(row: Row[Any]) -> Rendition:
    init = None
    if row.init_object_key is not None:
        init = InitSegment(
            object_key=row.init_object_key,
            sha256=row.init_sha256,
            codecs=row.codecs,
            timescale=row.timescale,
        )
    return Rendition(
        rendition_id=row.rendition_id,
        kind=Kind(row.kind),
        h264=row.h264,
        height=row.height,
        encoded=row.encoded,
        init=init,
        published_count=row.published_count,
        ready_count=row.ready_count,
        size_sum_bytes=row.size_sum_bytes,
        duration_sum_ticks=row.duration_sum_ticks,
        peak_bits_per_second=row.peak_bits_per_second,
        last_number=row.last_number,
    )
