"""Series, their episodes and watchlists on SQLite or PostgreSQL: the other half of a session."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from services.catalog import rows
from services.catalog.model import Title, Viewer
from services.catalog.series import Episode, Season, Series
from services.catalog.tables import EPISODES, SEASONS, SERIES, TITLES, WATCHLIST
from services.runtime.sql import Retry


class SqlSeries:
    """See `store.Session` for the methods."""

    def __init__(self, connection: Connection) -> None:
        """Commits nothing itself."""
        self._connection = connection

    def series(self, series_id: str) -> Series | None:
        """See `Session.series`."""
        row = self._connection.execute(select(SERIES).where(SERIES.c.series_id == series_id)).first()
        return None if row is None else rows.series(row)

    def series_seen(
        self, viewer: Viewer, after: tuple[datetime, str] | None, limit: int, series_id: str = ""
    ) -> list[Series]:
        """See `Session.series_seen`."""
        query = select(SERIES)
        if series_id:
            query = query.where(SERIES.c.series_id == series_id)
        if not viewer.sees_all:
            inside = EPISODES.join(SEASONS, SEASONS.c.season_id == EPISODES.c.season_id).join(
                TITLES, TITLES.c.title_id == EPISODES.c.title_id
            )
            shown = exists().select_from(inside).where(SEASONS.c.series_id == SERIES.c.series_id)
            query = query.where(or_(SERIES.c.owner == viewer.subject, shown.where(rows.VISIBLE)))
        if after is not None:
            query = query.where(
                tuple_(SERIES.c.create_us, SERIES.c.series_id) < (rows.us(after[0]), after[1])
            )
        query = query.order_by(SERIES.c.create_us.desc(), SERIES.c.series_id.desc()).limit(limit)
        return [rows.series(row) for row in self._connection.execute(query)]

    def save_series(self, series: Series) -> None:
        """See `Session.save_series`."""
        upsert(self._connection, SERIES, rows.series_row(series), "series_id")

    def remove_series(self, series_id: str) -> None:
        """See `Session.remove_series`."""
        self._connection.execute(delete(SERIES).where(SERIES.c.series_id == series_id))
        self._connection.execute(delete(WATCHLIST).where(WATCHLIST.c.subject == f"series/{series_id}"))

    def seasons(self, series_id: str) -> list[Season]:
        """See `Session.seasons`."""
        query = select(SEASONS).where(SEASONS.c.series_id == series_id).order_by(SEASONS.c.number)
        return [rows.season(row) for row in self._connection.execute(query)]

    def save_season(self, season: Season) -> None:
        """See `Session.save_season`."""
        upsert(self._connection, SEASONS, rows.season_row(season), "season_id")

    def remove_season(self, season_id: str) -> None:
        """See `Session.remove_season`."""
        self._connection.execute(delete(SEASONS).where(SEASONS.c.season_id == season_id))

    def episodes(self, season_id: str) -> list[Episode]:
        """See `Session.episodes`."""
        query = select(EPISODES).where(EPISODES.c.season_id == season_id).order_by(EPISODES.c.number)
        return [Episode(**row._mapping) for row in self._connection.execute(query)]

    def episode_titles(
        self, viewer: Viewer, series_id: str, season_id: str, after: tuple[int, int], limit: int
    ) -> list[Title]:
        """See `Session.episode_titles`."""
        order = tuple_(SEASONS.c.number, EPISODES.c.number)
        query = rows.PLACED.where(
            SEASONS.c.series_id == series_id, TITLES.c.delete_us.is_(None), order > after
        )
        if season_id:
            query = query.where(SEASONS.c.season_id == season_id)
        if not viewer.sees_all:
            query = query.where(or_(rows.VISIBLE, TITLES.c.owner == viewer.subject))
        found = self._connection.execute(query.order_by(*order.clauses).limit(limit))
        return [rows.title(row) for row in found]

    def save_episodes(self, season_id: str, episodes: Sequence[Episode]) -> None:
        """See `Session.save_episodes`."""
        self._connection.execute(delete(EPISODES).where(EPISODES.c.season_id == season_id))
        if episodes:
            add(self._connection, EPISODES, [vars(episode) for episode in episodes])

    def series_titles(self, series_id: str) -> list[Title]:
        """See `Session.series_titles`."""
        query = rows.PLACED.where(SEASONS.c.series_id == series_id)
        return [rows.title(row) for row in self._connection.execute(query)]

    def leave_places(self, title_id: str) -> None:
        """See `Session.leave_places`."""
        self._connection.execute(delete(EPISODES).where(EPISODES.c.title_id == title_id))
        self._connection.execute(delete(WATCHLIST).where(WATCHLIST.c.subject == f"titles/{title_id}"))

    def watch(self, profile: str, subject: str, now: datetime, limit: int) -> datetime | None:
        """See `Session.watch`."""
        mine = WATCHLIST.c.profile == profile
        since = select(WATCHLIST.c.add_us).where(mine, WATCHLIST.c.subject == subject)
        found = self._connection.execute(since).scalar()
        if found is not None:
            return rows.time(found)
        count = self._connection.execute(select(func.count()).select_from(WATCHLIST).where(mine)).scalar_one()
        if count >= limit:
            return None
        row = {"profile": profile, "subject": subject, "add_us": rows.us(now)}
        add(self._connection, WATCHLIST, [row])
        return now

    def unwatch(self, profile: str, entry: str) -> None:
        """See `Session.unwatch`."""
        subjects = [f"titles/{entry}", f"series/{entry}"]
        self._connection.execute(
            delete(WATCHLIST).where(WATCHLIST.c.profile == profile, WATCHLIST.c.subject.in_(subjects))
        )

    def unwatch_all(self, profile: str) -> None:
        """See `Session.unwatch_all`."""
        self._connection.execute(delete(WATCHLIST).where(WATCHLIST.c.profile == profile))

    def watched(
        self, profile: str, after: tuple[datetime, str] | None, limit: int
    ) -> list[tuple[str, datetime]]:
        """See `Session.watched`."""
        query = select(WATCHLIST).where(WATCHLIST.c.profile == profile)
        if after is not None:
            query = query.where(
                tuple_(WATCHLIST.c.add_us, WATCHLIST.c.subject) < (rows.us(after[0]), after[1])
            )
        query = query.order_by(WATCHLIST.c.add_us.desc(), WATCHLIST.c.subject.desc()).limit(limit)
        return [(row.subject, rows.time(row.add_us)) for row in self._connection.execute(query)]


def upsert(connection: Connection, table: Any, row: dict[str, Any], *key: str) -> None:
    """Insert or update by key; a plain update first, since most rows are there."""
    where = [table.c[name] == row[name] for name in key]
    if connection.execute(select(exists().where(*where))).scalar():
        connection.execute(update(table).where(*where).values(row))
    else:
        add(connection, table, [row])


def add(connection: Connection, table: Any, found: Sequence[dict[str, Any]]) -> None:
    """Insert rows whose keys are free; where another writer was first, the transaction looks again."""
    try:
        connection.execute(insert(table), list(found))
    except IntegrityError as error:
        raise Retry from error
