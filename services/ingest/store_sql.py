"""Uploads in SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, func, insert, select, update

from services.ingest.model import Rejection, State, Upload, UploadIncomplete, UploadNotFound
from services.runtime.errors import Code
from services.runtime.idempotency import replay_or_run
from services.runtime.sql import Database

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UPLOADS = sa.Table(
    "uploads",
    sa.MetaData(),
    sa.Column("upload_id", sa.String, primary_key=True),
    sa.Column("title", sa.String),
    sa.Column("owner", sa.String),
    sa.Column("file_name", sa.Text),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("received_bytes", sa.BigInteger),
    sa.Column("state", sa.String),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("rejection", sa.Text),
    sa.Column("highlights", sa.LargeBinary),
    sa.Column("create_time_us", sa.BigInteger),
    sa.Column("expire_time_us", sa.BigInteger),
    sa.Column("replaces", sa.Boolean),
)
_UNFINISHED = tuple(state.value for state in State if not state.ended)


class SqlStore:
    """See `services.ingest.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(
        self, upload: Upload, request_id: str, request: bytes, check: Callable[[int], None]
    ) -> Upload:
        """See `Store.create`."""

        def run(conn: Connection) -> Upload:
            def new() -> bytes:
                used = conn.execute(
                    select(func.coalesce(func.sum(_UPLOADS.c.size_bytes), 0)).where(
                        _UPLOADS.c.owner == upload.owner, _UPLOADS.c.state.in_(_UNFINISHED)
                    )
                ).scalar_one()
                check(int(used))
                conn.execute(insert(_UPLOADS).values(**_row(upload)))
                return upload.upload_id.encode()

            scope = f"{upload.owner}/CreateUpload"
            return _get(conn, replay_or_run(conn, scope, request_id, request, new).decode())

        return await self._db.write(run)

    async def get(self, upload_id: str) -> Upload:
        """See `Store.get`."""
        return await self._db.read(lambda conn: _get(conn, upload_id))

    async def newest(self, owner: str | None, after: str, limit: int) -> list[Upload]:
        """See `Store.newest`: ids sort by time."""
        query = select(_UPLOADS).order_by(_UPLOADS.c.upload_id.desc()).limit(limit)
        if owner is not None:
            query = query.where(_UPLOADS.c.owner == owner)
        if after:
            query = query.where(_UPLOADS.c.upload_id < after)
        return await self._db.read(lambda conn: [_upload(row) for row in conn.execute(query)])

    async def received(self, upload_id: str, received_bytes: int, expire_time: datetime) -> None:
        """See `Store.received`."""
        values = {"received_bytes": received_bytes, "expire_time_us": _us(expire_time)}
        await self._db.write(lambda conn: _set(conn, upload_id, **values))

    async def begin_completion(self, upload_id: str, sha256: bytes) -> Upload:
        """See `Store.begin_completion`."""

        def run(conn: Connection) -> Upload:
            upload = _get(conn, upload_id)
            if upload.state is not State.RECEIVING:
                return upload
            if upload.received_bytes != upload.size_bytes:
                raise UploadIncomplete(upload.received_bytes, upload.size_bytes)
            _set(conn, upload_id, state=State.COMPLETING.value, sha256=sha256)
            return _get(conn, upload_id)

        return await self._db.write(run)

    async def end(
        self, upload_id: str, *, expected: State, state: State, rejection: Rejection | None = None
    ) -> Upload:
        """See `Store.end`."""

        def run(conn: Connection) -> Upload:
            if _get(conn, upload_id).state is expected:
                told = None if rejection is None else _rejection_text(rejection)
                _set(conn, upload_id, state=state.value, rejection=told)
            return _get(conn, upload_id)

        return await self._db.write(run)

    async def in_state(self, *states: State) -> list[Upload]:
        """See `Store.in_state`."""
        query = select(_UPLOADS).where(_UPLOADS.c.state.in_([state.value for state in states]))
        return await self._db.read(lambda conn: [_upload(row) for row in conn.execute(query)])

    async def expired(self, now: datetime) -> list[Upload]:
        """See `Store.expired`."""
        receiving = _UPLOADS.c.state == State.RECEIVING.value
        query = select(_UPLOADS).where(receiving, _UPLOADS.c.expire_time_us <= _us(now))
        return await self._db.read(lambda conn: [_upload(row) for row in conn.execute(query)])


def _get(conn: Connection, upload_id: str) -> Upload:
    row = conn.execute(select(_UPLOADS).where(_UPLOADS.c.upload_id == upload_id)).first()
    if row is None:
        raise UploadNotFound(f"uploads/{upload_id}")
    return _upload(row)


def _set(conn: Connection, upload_id: str, **values: Any) -> None:
    conn.execute(update(_UPLOADS).where(_UPLOADS.c.upload_id == upload_id).values(**values))


def _row(upload: Upload) -> dict[str, Any]:
    return {
        "upload_id": upload.upload_id,
        "title": upload.title,
        "owner": upload.owner,
        "file_name": upload.file_name,
        "size_bytes": upload.size_bytes,
        "received_bytes": upload.received_bytes,
        "state": upload.state.value,
        "sha256": upload.sha256,
        "highlights": upload.highlights,
        "create_time_us": _us(upload.create_time),
        "expire_time_us": _us(upload.expire_time),
        "replaces": upload.replaces,
    }


def _upload(row: Any) -> Upload:
    return Upload(
        upload_id=row.upload_id,
        title=row.title,
        owner=row.owner,
        file_name=row.file_name,
        size_bytes=row.size_bytes,
        received_bytes=row.received_bytes,
        state=State(row.state),
        sha256=row.sha256,
        rejection=_rejection(row.rejection),
        highlights=row.highlights,
        replaces=row.replaces,
        create_time=_EPOCH + timedelta(microseconds=row.create_time_us),
        expire_time=_EPOCH + timedelta(microseconds=row.expire_time_us),
    )


def _rejection_text(rejection: Rejection) -> str:
    return json.dumps([rejection.code.name, rejection.reason, rejection.message, rejection.metadata])


def _rejection(text: str | None) -> Rejection | None:
    if text is None:
        return None
    code, reason, message, metadata = json.loads(text)
    return Rejection(code=Code[code], reason=reason, message=message, metadata=metadata)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
