"""Series, their seasons, and the titles that are their episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.catalog.errors import SeriesChanged
from services.catalog.text import TitleText
from services.runtime.errors import InvalidArgument

MAX_SEASONS = 200
MAX_EPISODES = 2_000


@dataclass(frozen=True, kw_only=True)
class Series:
    """Titles that belong together. Changing it gives a new value with the next version."""

    series_id: str
    owner: str
    text: TitleText
    create_time: datetime
    update_time: datetime
    version: int = 1
    #: Id of the picture that stands for it; empty: none.
    artwork: str = ""

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return f"s{self.version}"

    def changed(self, now: datetime, **fields: object) -> Series:
        """This series with other values, as its next version."""
        return replace(self, **fields, version=self.version + 1, update_time=now)  # type: ignore[arg-type]

    def edited(self, now: datetime, text: TitleText, etag: str) -> Series:
        """With another text. Raises `SeriesChanged` when `etag` is given and old, `InvalidArgument`."""
        if etag and etag != self.etag:
            raise SeriesChanged(self.series_id)
        return self if text == self.text else self.changed(now, text=text.check("series"))


@dataclass(frozen=True, kw_only=True)
class Season:
    """A part of a series."""

    season_id: str
    series_id: str
    number: int
    create_time: datetime
    display_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A title in a season. A title is at most one."""

    title_id: str
    season_id: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a title stands in a series."""

    series_id: str
    series_name: str
    season_id: str
    season_number: int
    number: int

    @property
    def order(self) -> tuple[int, int]:
        """Orders the episodes of a series."""
        return self.season_number, self.number


def renumbered(episodes: Sequence[Episode], order: Sequence[str]) -> list[Episode]:
    """The episodes of a season, numbered from 1 in the order of these titles. Raises `InvalidArgument`."""
    by_title = {episode.title_id: episode for episode in episodes}
    if len(order) != len(by_title) or set(order) != by_title.keys():
        raise InvalidArgument("episodes", "must name each episode of the season once")
    return [replace(by_title[title_id], number=number) for number, title_id in enumerate(order, 1)]
