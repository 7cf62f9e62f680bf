"""Leases in SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from services.playback.errors import ConcurrentStreamLimit
from services.playback.model import Lease
from services.playback.renewals import Renewal, Renewals
from services.playback.store import LeaseState
from services.runtime.columns import UtcTime
from services.runtime.idempotency import purge, replay_or_run
from services.runtime.sql import Database

LEASES = Table(
    "leases",
    MetaData(),
    Column("name", String(63), primary_key=True),
    Column("user_name", String(80), nullable=False),
    Column("profile", String(160), nullable=False),
    Column("title", String(80), nullable=False),
    Column("device", String(100), nullable=False),
    Column("title_duration_ns", BigInteger, nullable=False),
    Column("start_time", UtcTime, nullable=False),
    Column("expire_time", UtcTime, nullable=False),
    # Null while nobody ended it.
    Column("end_time", UtcTime),
    # Counting an account's live leases is on the way of every start.
    Index("leases_of_user", "user_name", "expire_time"),
    Index("leases_by_expiry", "expire_time"),
)

_ENDS = select(LEASES.c.name, LEASES.c.user_name, LEASES.c.end_time, LEASES.c.expire_time)
_MOVE_END = update(LEASES).where(LEASES.c.name == bindparam("lease")).values(expire_time=bindparam("until"))


def _live(which: ColumnElement[bool], now: datetime) -> ColumnElement[bool]:
    return and_(which, LEASES.c.expire_time > now, LEASES.c.end_time.is_(None))


def _count(user: str, now: datetime) -> Select[int]:
    """How many of a user's leases are live."""
    return select(func.count()).select_from(LEASES).where(_live(LEASES.c.user_name == user, now))


def _lease(row: Row[Any]) -> Lease:
    return Lease(
        name=row.name,
        profile=row.profile,
        title=row.title,
        device=row.device,
        start_time=row.start_time,
        expire_time=row.expire_time,
        title_duration_ns=row.title_duration_ns,
    )


def _state(row: Row[*tuple[Any, ...]] | None, at: datetime) -> LeaseState:
    if row is None:
        return LeaseState.LOST
    if row.end_time is not None:
        return LeaseState.ENDED
    return LeaseState.LIVE if row.expire_time > at else LeaseState.LOST


class SqlLeases:
    """A `LeaseStore` in one table; serialisable, so that two starts never count past each other."""

    def __init__(self, database: Database) -> None:
        """The schema must be there (`services.playback` migrations)."""
        self._database = database
        self._renewals = Renewals(self._renew)

    async def take(self, lease: Lease, limit: int, request_id: str, now: datetime) -> Lease:
        """See `LeaseStore.take`."""
        asked = json.dumps([lease.profile, lease.title, lease.device]).encode()
        taken = _count(lease.user, now)
        row = {**vars(lease), "user_name": lease.user}
        del row["job"], row["stream_limit"]  # are in the token

        def transaction(conn: Connection) -> Lease:
            def add() -> bytes:
                if conn.execute(taken).scalar_one() >= limit:
                    raise ConcurrentStreamLimit(limit)
                conn.execute(insert(LEASES).values(row))
                return lease.name.encode()

            scope, now_ms = f"{lease.user}/StartPlayback", int(now.timestamp() * 1000)
            name = replay_or_run(conn, scope, request_id, asked, add, now_ms=now_ms).decode()
            return _lease(conn.execute(select(LEASES).where(LEASES.c.name == name)).one())

        return await self._database.write(transaction)

    async def renew(self, name: str, live_at: datetime, expire_time: datetime) -> LeaseState:
        """See `LeaseStore.renew`."""
        return await self._renewals.renew(Renewal(name=name, live_at=live_at, expire_time=expire_time))

    async def _renew(self, renewals: Sequence[Renewal]) -> list[LeaseState]:
        def transaction(conn: Connection) -> list[LeaseState]:
            rows = conn.execute(_ENDS.where(LEASES.c.name.in_([renewal.name for renewal in renewals])))
            found = {row.name: row for row in rows}
            states = [_state(found.get(renewal.name), renewal.live_at) for renewal in renewals]
            moved = [
                {"lease": renewal.name, "until": renewal.expire_time}
                for renewal, state in zip(renewals, states, strict=True)
                if state is LeaseState.LIVE
            ]
            if moved:
                conn.execute(_MOVE_END, moved)
            return states

        return await self._database.write(transaction)

    async def regain(self, name: str, limit: int, now: datetime, expire_time: datetime) -> LeaseState:
        """See `LeaseStore.regain`."""

        def transaction(conn: Connection) -> LeaseState:
            row = conn.execute(_ENDS.where(LEASES.c.name == name)).first()
            state = _state(row, now)
            if row is None or state is not LeaseState.LOST:
                return state
            if conn.execute(_count(row.user_name, now)).scalar_one() >= limit:
                return state
            conn.execute(_MOVE_END, {"lease": name, "until": expire_time})
            return LeaseState.LIVE

        return await self._database.write(transaction)

    async def state(self, name: str, now: datetime) -> LeaseState:
        """See `LeaseStore.state`."""
        query = _ENDS.where(LEASES.c.name == name)
        return await self._database.read(lambda conn: _state(conn.execute(query).first(), now))

    async def end(self, name: str, now: datetime) -> None:
        """See `LeaseStore.end`."""
        change = update(LEASES).where(_live(LEASES.c.name == name, now)).values(end_time=now)
        await self._database.write(lambda conn: conn.execute(change).rowcount)

    async def live(self, user: str, now: datetime) -> list[Lease]:
        """See `LeaseStore.live`."""
        query = (
            select(LEASES)
            .where(_live(LEASES.c.user_name == user, now))
            .order_by(LEASES.c.start_time, LEASES.c.name)
        )
        return await self._database.read(lambda conn: [_lease(row) for row in conn.execute(query)])

    async def purge(self, before: datetime) -> int:
        """See `LeaseStore.purge`."""

        def transaction(conn: Connection) -> int:
            purge(conn, before)
            return conn.execute(delete(LEASES).where(LEASES.c.expire_time <= before)).rowcount

        return await self._database.write(transaction)
