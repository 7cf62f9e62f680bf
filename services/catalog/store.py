"""Where the catalog keeps its titles and media."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from services.catalog.model import Details, Media, Rendition, Segment, Sweep, Title, Viewer
from services.catalog.series import Episode, Season, Series

T = TypeVar("T")


class Session(Protocol):
    """One transaction: all of it takes effect, or none."""

    def title(self, title_id: str) -> Title | None:
        """A title, deleted ones too until they are collected."""

    def titles(
        self,
        viewer: Viewer,
        after: tuple[datetime, str] | None,
        limit: int,
        *,
        without_episodes: bool = False,
    ) -> list[Title]:
        """What `viewer` sees, newest first; `after` is (create_time, id) of the last one seen."""

    def once(
        self, scope: str, request_id: str, request: bytes, now: datetime, create: Callable[[], str]
    ) -> str:
        """What `create` gives, unless this request came before; then what it gave at that time.

        Raises `RequestIdReused` when the id came with another request.
        """

    def save_title(self, title: Title) -> None:
        """Insert or replace a title and mark it as unsent to the search index."""

    def media(self, title_id: str, job: str) -> Media | None:
        """What a job made of a title, at a cost that grows with its renditions only."""

    def save_media(self, media: Media, changed: Sequence[Rendition]) -> None:
        """Insert or update the media and these of its renditions."""

    def replace_renditions(self, media: Media) -> None:
        """Make the renditions of `media` the only ones of its job."""

    def details(self, title_id: str, job: str) -> Details:
        """Frames, grid and highlights; empty ones where there are none."""

    def save_details(self, title_id: str, job: str, details: Details) -> None:
        """Replace all of them."""

    def save_grid(self, title_id: str, job: str, starts: Sequence[int], highlights: bytes) -> None:
        """Replace grid and highlights."""

    def segments(self, title_id: str, job: str, rendition_id: str, first: int, limit: int) -> list[Segment]:
        """Published segments from number `first` on, by number."""

    def published(
        self, title_id: str, job: str, rendition_id: str, numbers: Sequence[int]
    ) -> Mapping[int, str]:
        """Object keys of those of `numbers` that are published."""

    def add_segments(self, title_id: str, job: str, rendition_id: str, segments: Sequence[Segment]) -> None:
        """Publish segments whose numbers are not published yet."""

    def ready_from(self, title_id: str, job: str, rendition_id: str, number: int) -> int:
        """The first number from `number` on that is not published."""

    def unsent(self, now: datetime, limit: int) -> list[Title]:
        """Titles whose newest version the index may lack, longest waiting first; deleted ones too.

        None that is put off beyond `now`.
        """

    def put_off(self, title_id: str, version: int, until: datetime) -> None:
        """Leave this version out of `unsent` until then; nothing happens when there is a newer one."""

    def mark_sent(self, title_id: str, version: int) -> None:
        """The search index has this version; nothing happens when there is a newer one."""

    def stale_artwork(self, limit: int) -> list[Title]:
        """Titles whose picture is a frame of a source that was replaced."""

    def add_sweep(self, sweep: Sweep) -> None:
        """Have objects collected; replaces an earlier order of the same prefix."""

    def next_sweep(self) -> Sweep | None:
        """The one due first."""

    def remove_sweep(self, sweep: Sweep) -> None:
        """It is done for good."""

    def forget_segments(self, sweep: Sweep, limit: int) -> int:
        """Delete at most `limit` segment rows of what was swept; how many were there."""

    def forget_media(self, sweep: Sweep) -> None:
        """Delete what is left of what was swept: of a deleted title also its words, its tombstone stays; of a
        replaced job all but that it was replaced.
        """

    def series(self, series_id: str) -> Series | None:
        """A series."""

    def series_seen(
        self, viewer: Viewer, after: tuple[datetime, str] | None, limit: int, series_id: str = ""
    ) -> list[Series]:
        """What `viewer` sees, newest first: own ones and those with a visible episode; or only the named."""

    def save_series(self, series: Series) -> None:
        """Insert or replace."""

    def remove_series(self, series_id: str) -> None:
        """Delete a series without seasons, also from watchlists."""

    def seasons(self, series_id: str) -> list[Season]:
        """By number."""

    def save_season(self, season: Season) -> None:
        """Insert or replace."""

    def remove_season(self, season_id: str) -> None:
        """Delete a season without episodes."""

    def episodes(self, season_id: str) -> list[Episode]:
        """All of a season by number, whoever may see them."""

    def episode_titles(
        self, viewer: Viewer, series_id: str, season_id: str, after: tuple[int, int], limit: int
    ) -> list[Title]:
        """Titles that `viewer` sees, by (season, number), after `after`; an empty `season_id`: of all."""

    def save_episodes(self, season_id: str, episodes: Sequence[Episode]) -> None:
        """Make these the only episodes of a season."""

    def series_titles(self, series_id: str) -> list[Title]:
        """All episodes' titles, whoever may see them."""

    def leave_places(self, title_id: str) -> None:
        """A deleted title is no episode any more and on no watchlist."""

    def watch(self, profile: str, subject: str, now: datetime, limit: int) -> datetime | None:
        """Put `titles/…` or `series/…` on a list; since when it is there, None when the list is full."""

    def unwatch(self, profile: str, entry: str) -> None:
        """Take the title or series with this id off a list."""

    def unwatch_all(self, profile: str) -> None:
        """Empty a list."""

    def watched(
        self, profile: str, after: tuple[datetime, str] | None, limit: int
    ) -> list[tuple[str, datetime]]:
        """Subjects and when they were added, last added first."""


class Store(Protocol):
    """Transactions, which behave as if run one after the other; acknowledged means durable.

    The function given may run more than once and must have no effect outside its session.
    """

    async def write(self, fn: Callable[[Session], T]) -> T:
        """Run a transaction that changes something."""

    async def read(self, fn: Callable[[Session], T]) -> T:
        """Run a transaction that sees one snapshot and changes nothing."""
