"""What can be done with series, seasons and episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from services.catalog.errors import (
    AlreadyEpisode,
    EpisodeNotFound,
    EpisodeNumberTaken,
    SeasonNotFound,
    SeasonNumberTaken,
    SeriesFull,
    SeriesNotFound,
)
from services.catalog.model import Sweep, Title, Viewer
from services.catalog.series import MAX_EPISODES, MAX_SEASONS, Episode, Season, Series, renumbered
from services.catalog.store import Session, Store
from services.catalog.text import TitleText
from services.catalog.usecases import Page, owned, page_of, seen
from services.runtime.auth import NotYours
from services.runtime.clock import Clock
from services.runtime.ids import new_id

_T = TypeVar("_T")


class Shelf:
    """The use cases of series, over a store."""

    def __init__(self, store: Store, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called after each change that the search index should see."""
        self._store = store
        self._clock = clock
        self._changed = changed

    async def create(self, owner: str, text: TitleText, request_id: str, request: bytes) -> Series:
        """A new series without seasons; a repetition of the request gives the same one."""
        now = self._clock.now()
        new = Series(
            series_id=new_id(), owner=owner, text=text.check("series"), create_time=now, update_time=now
        )

        def save(session: Session) -> str:
            session.save_series(new)
            return new.series_id

        def run(session: Session) -> Series:
            scope = f"{owner}/CreateSeries"
            return _series(session, session.once(scope, request_id, request, now, lambda: save(session)))

        return await self._write(run)

    async def get(self, viewer: Viewer, series_id: str) -> Series:
        """Raises `SeriesNotFound`, also where `viewer` sees no episode of it."""
        return await self._store.read(lambda session: series_seen(session, viewer, series_id))

    async def newest(self, viewer: Viewer, after: tuple[datetime, str] | None, limit: int) -> Page[Series]:
        """At most `limit` of the series `viewer` may see, newest first."""
        return page_of(
            await self._store.read(lambda session: session.series_seen(viewer, after, limit + 1)), limit
        )

    async def update(
        self, viewer: Viewer, series_id: str, edit: Callable[[TitleText], TitleText], etag: str
    ) -> Series:
        """Change its words. Raises `SeriesNotFound`, `NotYours`, `SeriesChanged`, `InvalidArgument`."""

        def run(session: Session) -> Series:
            old = owned_series(session, viewer, series_id)
            new = old.edited(self._clock.now(), edit(old.text), etag)
            if new is not old:
                session.save_series(new)
                if new.text.display_name != old.text.display_name:
                    self._tell(session, session.series_titles(series_id))
            return new

        return await self._write(run)

    async def delete(self, viewer: Viewer, series_id: str) -> None:
        """Delete a series and its seasons; titles stay. Raises `SeriesNotFound`, `NotYours`."""

        def run(session: Session) -> None:
            owned_series(session, viewer, series_id)
            titles = session.series_titles(series_id)
            for season in session.seasons(series_id):
                session.save_episodes(season.season_id, ())
                session.remove_season(season.season_id)
            session.remove_series(series_id)
            session.add_sweep(Sweep(title_id=series_id, job="", due_time=self._clock.now(), rounds=2))
            self._tell(session, titles)

        await self._write(run)

    async def add_season(
        self, viewer: Viewer, series_id: str, number: int, display_name: str, request_id: str
    ) -> Season:
        """A new season. Raises `SeriesNotFound`, `NotYours`, `SeasonNumberTaken`, `SeriesFull`."""
        now = self._clock.now()
        new = Season(
            season_id=new_id(),
            series_id=series_id,
            number=number,
            display_name=display_name,
            create_time=now,
        )

        def save(session: Session) -> str:
            if len(session.seasons(series_id)) >= MAX_SEASONS:
                raise SeriesFull(MAX_SEASONS)
            _save_season(session, new)
            return new.season_id

        def run(session: Session) -> Season:
            owned_series(session, viewer, series_id)
            request = f"{number}\0{display_name}".encode()
            scope = f"series/{series_id}/CreateSeason"
            season_id = session.once(scope, request_id, request, now, lambda: save(session))
            return _season(session, series_id, season_id)

        return await self._write(run)

    async def seasons(self, viewer: Viewer, series_id: str) -> list[Season]:
        """By number. Raises `SeriesNotFound`."""

        def run(session: Session) -> list[Season]:
            series_seen(session, viewer, series_id)
            return session.seasons(series_id)

        return await self._store.read(run)

    async def update_season(
        self, viewer: Viewer, series_id: str, season_id: str, edit: Callable[[Season], Season]
    ) -> Season:
        """Change number or name.

        Raises `SeriesNotFound`, `SeasonNotFound`, `NotYours`, `SeasonNumberTaken`.
        """

        def run(session: Session) -> Season:
            owned_series(session, viewer, series_id)
            old = _season(session, series_id, season_id)
            new = edit(old)
            if new.number != old.number:
                _save_season(session, new)
                self._tell(session, _titles(session, session.episodes(season_id)))
            else:
                session.save_season(new)
            return new

        return await self._write(run)

    async def delete_season(self, viewer: Viewer, series_id: str, season_id: str) -> None:
        """Titles stay. Raises `SeriesNotFound`, `SeasonNotFound`, `NotYours`."""

        def run(session: Session) -> None:
            owned_series(session, viewer, series_id)
            _season(session, series_id, season_id)
            old = session.episodes(season_id)
            session.save_episodes(season_id, ())
            session.remove_season(season_id)
            self._tell(session, _titles(session, old))

        await self._write(run)

    async def add_episode(
        self, viewer: Viewer, series_id: str, season_id: str, title_id: str, number: int, request_id: str
    ) -> Title:
        """Make a title an episode; number 0: after the last one.

        Raises `SeriesNotFound`, `SeasonNotFound`, `TitleNotFound`, `NotYours`, `AlreadyEpisode`,
        `EpisodeNumberTaken`, `SeriesFull`.
        """

        def save(session: Session) -> str:
            there = session.episodes(season_id)
            if len(there) >= MAX_EPISODES:
                raise SeriesFull(MAX_EPISODES)
            if number and number in {episode.number for episode in there}:
                raise EpisodeNumberTaken(number)
            wanted = number or max((episode.number for episode in there), default=0) + 1
            new = Episode(title_id=title_id, season_id=season_id, number=wanted)
            session.save_episodes(season_id, [*there, new])
            self._tell(session, [owned(session, viewer, title_id)])
            return title_id

        def run(session: Session) -> Title:
            owned_series(session, viewer, series_id)
            _season(session, series_id, season_id)
            scope, request = f"seasons/{season_id}/CreateEpisode", f"{title_id} {number}".encode()

            def create() -> str:
                if owned(session, viewer, title_id).place is not None:
                    raise AlreadyEpisode(title_id)
                return save(session)

            return owned(session, viewer, session.once(scope, request_id, request, self._clock.now(), create))

        return await self._write(run)

    async def episodes(
        self, viewer: Viewer, series_id: str, season_id: str, after: tuple[int, int], limit: int
    ) -> Page[Title]:
        """Titles `viewer` may see, by season and number; an empty `season_id`: of all seasons.

        Raises `SeriesNotFound`.
        """

        def run(session: Session) -> list[Title]:
            series_seen(session, viewer, series_id)
            return session.episode_titles(viewer, series_id, season_id, after, limit + 1)

        return page_of(await self._store.read(run), limit)

    async def reorder(self, viewer: Viewer, series_id: str, season_id: str, order: Sequence[str]) -> None:
        """Number a season's episodes anew. Raises `SeriesNotFound`, `SeasonNotFound`, `NotYours`,
        `InvalidArgument`.
        """

        def run(session: Session) -> None:
            owned_series(session, viewer, series_id)
            _season(session, series_id, season_id)
            old = session.episodes(season_id)
            new = renumbered(old, order)
            session.save_episodes(season_id, new)
            self._tell(session, _titles(session, [one for one in new if one not in old]))

        await self._write(run)

    async def remove_episode(self, viewer: Viewer, series_id: str, season_id: str, title_id: str) -> None:
        """The title stays. Raises `SeriesNotFound`, `SeasonNotFound`, `EpisodeNotFound`, `NotYours`."""

        def run(session: Session) -> None:
            owned_series(session, viewer, series_id)
            _season(session, series_id, season_id)
            old = session.episodes(season_id)
            kept = [episode for episode in old if episode.title_id != title_id]
            if len(kept) == len(old):
                raise EpisodeNotFound(title_id)
            session.save_episodes(season_id, kept)
            self._tell(session, _titles(session, [one for one in old if one not in kept]))

        await self._write(run)

    async def next_episode(self, viewer: Viewer, title_id: str) -> Title | None:
        """The episode after a title that `viewer` may see and play; None after the last.

        Raises `TitleNotFound`.
        """

        def run(session: Session) -> Title | None:
            place = seen(session, viewer, title_id).place
            if place is None:
                return None
            after, following = place.order, True
            while following:
                found = session.episode_titles(viewer, place.series_id, "", after, 50)
                playable = next((title for title in found if title.playable_time is not None), None)
                if playable is not None:
                    return playable
                following = bool(found)
                after = found[-1].place.order if found and found[-1].place else after
            return None

        return await self._store.read(run)

    def _tell(self, session: Session, titles: Sequence[Title]) -> None:
        """These titles' places have changed: they have a new version, which the search index hears of."""
        for title in titles:
            if title.delete_time is None:
                session.save_title(title.changed(self._clock.now()))

    async def _write(self, fn: Callable[[Session], _T]) -> _T:
        result = await self._store.write(fn)
        self._changed()
        return result


def _series(session: Session, series_id: str) -> Series:
    series = session.series(series_id)
    if series is None:
        raise SeriesNotFound(series_id)
    return series


def series_seen(session: Session, viewer: Viewer, series_id: str) -> Series:
    """A series `viewer` may see. Raises `SeriesNotFound`."""
    found = session.series_seen(viewer, None, 1, series_id)
    if not found:
        raise SeriesNotFound(series_id)
    return found[0]


def owned_series(session: Session, viewer: Viewer, series_id: str) -> Series:
    """A series `viewer` may change. Raises `SeriesNotFound`, `NotYours`."""
    series = series_seen(session, viewer, series_id)
    if not viewer.sees_all and series.owner != viewer.subject:
        raise NotYours(f"series/{series_id}")
    return series


def _season(session: Session, series_id: str, season_id: str) -> Season:
    for season in session.seasons(series_id):
        if season.season_id == season_id:
            return season
    raise SeasonNotFound(season_id)


def _save_season(session: Session, season: Season) -> None:
    others = [one for one in session.seasons(season.series_id) if one.season_id != season.season_id]
    if season.number in {one.number for one in others}:
        raise SeasonNumberTaken(season.number)
    session.save_season(season)


def _titles(session: Session, episodes: Sequence[Episode]) -> list[Title]:
    found = [session.title(episode.title_id) for episode in episodes]
    return [title for title in found if title is not None]
