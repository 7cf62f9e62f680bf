"""Rows of the catalog's tables as values of its domain, and back."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select

from services.catalog.model import InitSegment, Kind, Rendition, Title
from services.catalog.rights import Window
from services.catalog.series import Place, Season, Series
from services.catalog.tables import EPISODES, SEASONS, SERIES, TITLES
from services.catalog.text import TitleText

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What viewers see of titles that aren't deleted.
VISIBLE = TITLES.c.playable_us.is_not(None) & ~TITLES.c.unpublished

#: Titles with their places in series.
PLACED = select(
    TITLES,
    EPISODES.c.season_id,
    EPISODES.c.number.label("episode_number"),
    SEASONS.c.series_id,
    SEASONS.c.number.label("season_number"),
    SERIES.c.display_name.label("series_name"),
).select_from(
    TITLES.outerjoin(EPISODES, EPISODES.c.title_id == TITLES.c.title_id)
    .outerjoin(SEASONS, SEASONS.c.season_id == EPISODES.c.season_id)
    .outerjoin(SERIES, SERIES.c.series_id == SEASONS.c.series_id)
)


def us(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def time(us: int) -> datetime:
    """The time they stand for."""
    return _EPOCH + timedelta(microseconds=us)


def maybe_us(moment: datetime | None) -> int | None:
    """As `us`, with None for None."""
    return None if moment is None else us(moment)


def maybe_time(us: int | None) -> datetime | None:
    """As `time`, with None for None."""
    return None if us is None else time(us)


def packed(starts: Sequence[int]) -> bytes:
    """Little-endian 64-bit integers."""
    return struct.pack(f"<{len(starts)}q", *starts)


def unpacked(data: bytes) -> tuple[int, ...]:
    """The integers that were packed."""
    return struct.unpack(f"<{len(data) // 8}q", data)


def title_row(title: Title) -> dict[str, Any]:
    """A title's row in `titles`."""
    return {
        "title_id": title.title_id,
        "owner": title.owner,
        **text_row(title.text),
        "version": title.version,
        "job": title.job,
        "duration_ns": title.duration_ns,
        "error": title.error,
        "create_us": us(title.create_time),
        "update_us": us(title.update_time),
        "playable_us": maybe_us(title.playable_time),
        "complete_us": maybe_us(title.complete_time),
        "delete_us": maybe_us(title.delete_time),
        "unpublished": title.unpublished,
        "artwork": title.artwork,
        "next_job": title.next_job,
        "next_error": title.next_error,
        "artwork_frame_ns": title.artwork_frame_ns,
        "artwork_stale": title.artwork_stale,
        "rights": json.dumps([_window_row(window) for window in title.rights]),
    }


def title(row: Row[Any]) -> Title:
    """A title of a row of `PLACED`."""
    return Title(
        title_id=row.title_id,
        owner=row.owner,
        text=text(row),
        version=row.version,
        job=row.job,
        duration_ns=row.duration_ns,
        error=row.error,
        create_time=time(row.create_us),
        update_time=time(row.update_us),
        playable_time=maybe_time(row.playable_us),
        complete_time=maybe_time(row.complete_us),
        delete_time=maybe_time(row.delete_us),
        unpublished=row.unpublished,
        artwork=row.artwork,
        next_job=row.next_job,
        next_error=row.next_error,
        artwork_frame_ns=row.artwork_frame_ns,
        artwork_stale=row.artwork_stale,
        rights=tuple(_window(window) for window in json.loads(row.rights)),
        place=_place(row),
    )


def rendition_row(rendition: Rendition) -> dict[str, Any]:
    """A rendition's row, without its title and position."""
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


def rendition(row: Row[Any]) -> Rendition:
    """A rendition of its row."""
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


def text_row(text: TitleText) -> dict[str, Any]:
    """What people wrote, as columns."""
    return {
        "display_name": text.display_name,
        "description": text.description,
        "release_year": text.release_year,
        "genres": json.dumps(text.genres, ensure_ascii=False),
    }


def text(row: Row[Any]) -> TitleText:
    """What people wrote, of these columns."""
    return TitleText(
        display_name=row.display_name,
        description=row.description,
        release_year=row.release_year,
        genres=tuple(json.loads(row.genres)),
    )


def _window_row(window: Window) -> list[Any]:
    return [maybe_us(window.start), maybe_us(window.end), list(window.regions)]


def _window(row: list[Any]) -> Window:
    return Window(start=maybe_time(row[0]), end=maybe_time(row[1]), regions=tuple(row[2]))


def _place(row: Row[Any]) -> Place | None:
    if row.series_id is None:
        return None
    return Place(
        series_id=row.series_id,
        series_name=row.series_name,
        season_id=row.season_id,
        season_number=row.season_number,
        number=row.episode_number,
    )


def series_row(series: Series) -> dict[str, Any]:
    """A series' row."""
    return {
        "series_id": series.series_id,
        "owner": series.owner,
        **text_row(series.text),
        "version": series.version,
        "artwork": series.artwork,
        "create_us": us(series.create_time),
        "update_us": us(series.update_time),
    }


def series(row: Row[Any]) -> Series:
    """A series of its row."""
    return Series(
        series_id=row.series_id,
        owner=row.owner,
        text=text(row),
        version=row.version,
        artwork=row.artwork,
        create_time=time(row.create_us),
        update_time=time(row.update_us),
    )


def season_row(season: Season) -> dict[str, Any]:
    """A season's row."""
    return {
        "season_id": season.season_id,
        "series_id": season.series_id,
        "number": season.number,
        "display_name": season.display_name,
        "create_us": us(season.create_time),
    }


def season(row: Row[Any]) -> Season:
    """A season of its row."""
    return Season(
        season_id=row.season_id,
        series_id=row.series_id,
        number=row.number,
        display_name=row.display_name,
        create_time=time(row.create_us),
    )
