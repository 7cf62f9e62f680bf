"""What each profile wants to watch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.catalog.errors import SeriesNotFound, TitleNotFound, WatchlistFull
from services.catalog.model import Title, Viewer
from services.catalog.series import Series
from services.catalog.series_usecases import series_seen
from services.catalog.store import Session, Store
from services.catalog.usecases import seen
from services.runtime.clock import Clock

MAX_ENTRIES = 500


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A title or a series on a profile's list."""

    profile: str
    #: `titles/…` or `series/…`.
    subject: str
    add_time: datetime
    #: As it is now; None when the viewer can't see it.
    details: Title | Series | None


class Watchlist:
    """The use cases of watchlists, over the catalog's store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """`clock` says when something was added."""
        self._store = store
        self._clock = clock

    async def add(self, viewer: Viewer, profile: str, subject: str) -> Entry:
        """Adding again changes nothing. Raises `TitleNotFound`, `SeriesNotFound`, `WatchlistFull`."""

        def run(session: Session) -> Entry:
            details = _details(session, viewer, subject)
            since = session.watch(profile, subject, self._clock.now(), MAX_ENTRIES)
            if since is None:
                raise WatchlistFull(MAX_ENTRIES)
            return Entry(profile=profile, subject=subject, add_time=since, details=details)

        return await self._store.write(run)

    async def remove(self, profile: str, entry: str) -> None:
        """Take the title or series with this id off; that it wasn't on the list is no error."""
        await self._store.write(lambda session: session.unwatch(profile, entry))

    async def clear(self, profile: str) -> None:
        """Take all off."""
        await self._store.write(lambda session: session.unwatch_all(profile))

    async def entries(
        self, viewer: Viewer, profile: str, after: tuple[datetime, str] | None, limit: int
    ) -> list[Entry]:
        """At most `limit` entries, last added first, with those whose details can't be seen."""

        def entry(session: Session, subject: str, add_time: datetime) -> Entry:
            try:
                details = _details(session, viewer, subject)
            except (TitleNotFound, SeriesNotFound):
                details = None
            return Entry(profile=profile, subject=subject, add_time=add_time, details=details)

        return await self._store.read(
            lambda session: [entry(session, *found) for found in session.watched(profile, after, limit)]
        )


def _details(session: Session, viewer: Viewer, subject: str) -> Title | Series:
    kind, _, subject_id = subject.partition("/")
    return seen(session, viewer, subject_id) if kind == "titles" else series_seen(session, viewer, subject_id)
