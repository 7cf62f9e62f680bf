"""What the catalog does with media: what jobs made of a title, which of it plays, and what is collected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from services.catalog.errors import (
    MediaComplete,
    MediaNotFound,
    MediaNotRead,
    RenditionNotFound,
    TitleNotFound,
)
from services.catalog.model import (
    Details,
    Frames,
    InitSegment,
    Media,
    Rendition,
    Segment,
    State,
    Sweep,
    Title,
    in_order,
)
from services.catalog.store import Session, Store
from services.runtime.clock import Clock
from services.runtime.errors import InvalidArgument

T = TypeVar("T")

#: A task that was running when its title was deleted has ended, or lost its lease, by then.
LAST_SWEEP_AFTER = timedelta(hours=1)
#: A playback reads the media it was started with, at most for as long as its token can be opened (a day).
LAST_PLAY_AFTER = timedelta(hours=25)
#: A replacement that failed can be tried again for so long, then it is given up.
RETRY_WITHIN = timedelta(days=7)
_FORGET_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class MediaView:
    """A title with all that is known of one of its media; None before it has any."""

    title: Title
    media: Media | None
    details: Details

    @property
    def state(self) -> State:
        """How far the media is."""
        return self.title.state if self.media is None else self.title.state_of(self.media)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Finished segments of one rendition."""

    title_id: str
    job: str
    rendition_id: str
    init: InitSegment
    segments: tuple[Segment, ...]
    #: Whether the highest number is the rendition's last.
    last: bool


class MediaCases:
    """The use cases of media, over a store."""

    def __init__(self, store: Store, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called after each change that the search index or the collector should see."""
        self._store = store
        self._clock = clock
        self._changed = changed

    async def begin_media(
        self,
        title_id: str,
        job: str,
        frames: Frames | None,
        renditions: Sequence[Rendition],
        *,
        replaces: bool = False,
    ) -> MediaView:
        """Set a title's job, frames and renditions, each once; `replaces`: whatever media there is.

        Raises `TitleNotFound`, `MediaExists`, `MediaReplaced`.
        """

        def run(session: Session) -> MediaView:
            title, media = existing(session, title_id), session.media(title_id, job)
            if media is not None:
                media.check_kept()
            title.check_free(job, replaces=replaces)
            media = _fill(session, media or _new_media(session, title_id, job), frames, renditions)
            new = title.begun(self._clock.now(), job, media.duration_ns, replaces=replaces)
            self._save(session, title, new)
            if job == title.next_job and new is not title:
                session.remove_sweep(self._sweep(title_id, job, RETRY_WITHIN))
            return MediaView(title=new, media=media, details=session.details(title_id, job))

        return await self._write(run)

    def _save(self, session: Session, old: Title, new: Title) -> None:
        """Save a changed title; media it leaves behind is replaced, and collected when nobody reads it."""
        if new is old:
            return
        session.save_title(new)
        for job in {old.job, old.next_job} - {new.job, new.next_job, ""}:
            media = session.media(old.title_id, job)
            if media is not None:
                session.save_media(replace(media, version=media.version + 1, replaced=True), ())
            played = job == old.job and old.playable_time is not None
            session.add_sweep(self._sweep(old.title_id, job, LAST_PLAY_AFTER if played else LAST_SWEEP_AFTER))

    def _sweep(self, title_id: str, job: str, after: timedelta) -> Sweep:
        return Sweep(title_id=title_id, job=job, due_time=self._clock.now() + after, rounds=1)

    async def extend_timeline(
        self, title_id: str, job: str, starts: Sequence[int], *, planned: bool, highlights: bytes
    ) -> None:
        """Add planned segment starts and replace the highlights.

        Raises `TitleNotFound`, `NotTheJob`, `MediaFailed`, `MediaComplete`, `MediaNotRead`, `GridChanged`,
        `InvalidArgument`.
        """

        def run(session: Session) -> None:
            title, media = _processing(session, title_id, job)
            if not media.timescale:
                raise MediaNotRead(title_id)
            old = session.details(title_id, job)
            new = media.with_grid(old.starts, starts, planned=planned)
            if new == media and old.highlights == highlights:
                return
            if title.state_of(media) is State.COMPLETE:
                raise MediaComplete(title_id)
            new = replace(new, version=media.version + 1)
            session.save_grid(title_id, job, starts, highlights)
            session.save_media(new, ())
            self._advance(session, title, new)

        await self._write(run)

    async def publish(self, publication: Publication) -> tuple[State, list[str]]:
        """Publish segments; the state after it, and the object keys that lost against earlier ones.

        Raises `TitleNotFound`, `NotTheJob`, `MediaFailed`, `RenditionNotFound`, `InitSegmentDiffers`,
        `SegmentOutsideGrid`, `SegmentAfterLast`, `InvalidArgument`.
        """
        _check_publication(publication)
        return await self._write(lambda session: self._publish(session, publication))

    def _publish(self, session: Session, wanted: Publication) -> tuple[State, list[str]]:
        title, media = _processing(session, wanted.title_id, wanted.job)
        old = media.rendition(wanted.rendition_id)
        if old is None:
            raise RenditionNotFound(wanted.title_id, wanted.rendition_id)
        where = (wanted.title_id, wanted.job, wanted.rendition_id)
        numbers = [segment.number for segment in wanted.segments]
        rendition = old.with_init(wanted.init)
        rendition.check_numbers(media, numbers)
        if wanted.last:
            rendition = rendition.with_last(max(numbers))
        known = session.published(*where, numbers)
        new = [segment for segment in wanted.segments if segment.number not in known]
        session.add_segments(*where, new)
        ready = session.ready_from(*where, rendition.ready_count) if new else rendition.ready_count
        rendition = rendition.counted(new, ready)
        if rendition != old:
            media = replace(media.with_rendition(rendition), version=media.version + 1)
            session.save_media(media, [rendition])
            title = self._advance(session, title, media)
        lost = [s.object_key for s in wanted.segments if known.get(s.number, s.object_key) != s.object_key]
        return title.state_of(media), lost

    def _advance(self, session: Session, title: Title, media: Media) -> Title:
        """Record that the title has become playable or complete, in the transaction that made it so."""
        new = title.published(self._clock.now(), media)
        self._save(session, title, new)
        return new

    async def publish_extras(self, title_id: str, job: str, extras: bytes) -> None:
        """Set text tracks, chapters and storyboard, in the contract's encoding.

        Raises `TitleNotFound`, `NotTheJob`, `MediaFailed`, `MediaNotRead`.
        """

        def run(session: Session) -> None:
            _, media = _processing(session, title_id, job)
            old = session.details(title_id, job)
            if old.extras != extras:
                session.save_details(title_id, job, replace(old, extras=extras))
                session.save_media(replace(media, version=media.version + 1), ())

        await self._write(run)

    async def fail_media(self, title_id: str, job: str, error: bytes) -> None:
        """Mark the processing as failed for good. Raises `TitleNotFound`, `NotTheJob`, `MediaComplete`."""

        def run(session: Session) -> None:
            old = existing(session, title_id)
            new = old.failed(self._clock.now(), job, error)
            media = session.media(title_id, job)
            if new is not old:
                session.save_title(new)
                if job == new.next_job:
                    session.add_sweep(self._sweep(title_id, job, RETRY_WITHIN))
                if media is not None:
                    session.save_media(replace(media, version=media.version + 1), ())

        await self._write(run)

    async def get_media(self, title_id: str, job: str = "") -> MediaView:
        """What can be played of a title, or what `job` made. Raises `TitleNotFound`, `MediaNotFound`."""

        def run(session: Session) -> MediaView:
            title, media = _media(session, title_id, job)
            details = Details() if media is None else session.details(title_id, media.job)
            return MediaView(title=title, media=media, details=details)

        return await self._store.read(run)

    async def list_segments(
        self, title_id: str, rendition_id: str, first: int, limit: int, job: str = ""
    ) -> list[Segment]:
        """Published segments from `first` on; with one more than `limit` when more follow.

        Raises `TitleNotFound`, `MediaNotFound`, `RenditionNotFound`.
        """

        def run(session: Session) -> list[Segment]:
            _, media = _media(session, title_id, job)
            if media is None or media.rendition(rendition_id) is None:
                raise RenditionNotFound(title_id, rendition_id)
            return session.segments(title_id, media.job, rendition_id, first, limit + 1)

        return await self._store.read(run)

    async def next_sweep(self) -> Sweep | None:
        """The objects to collect next, due or not."""
        return await self._store.read(lambda session: session.next_sweep())

    async def give_up(self, sweep: Sweep) -> bool:
        """Whether a due sweep may be made: a failed replacement is given up first, and swept later."""

        def run(session: Session) -> bool:
            title = session.title(sweep.title_id)
            if title is None or not sweep.job or sweep.job != title.next_job:
                return True
            if title.next_error is None:
                session.remove_sweep(sweep)
            else:
                self._save(session, title, title.changed(self._clock.now(), next_job="", next_error=None))
            return False

        return await self._store.write(run)

    async def swept(self, sweep: Sweep) -> None:
        """The objects are gone: forget their rows, in short transactions, and plan the next round."""
        while await self._store.write(lambda session: session.forget_segments(sweep, _FORGET_ROWS)):
            pass

        def run(session: Session) -> None:
            session.forget_media(sweep)
            if sweep.rounds > 1:
                due = self._clock.now() + LAST_SWEEP_AFTER
                session.add_sweep(replace(sweep, due_time=due, rounds=sweep.rounds - 1))
            else:
                session.remove_sweep(sweep)

        await self._store.write(run)

    async def _write(self, fn: Callable[[Session], T]) -> T:
        result = await self._store.write(fn)
        self._changed()
        return result


def existing(session: Session, title_id: str) -> Title:
    """Raises `TitleNotFound`."""
    title = session.title(title_id)
    if title is None or title.delete_time is not None:
        raise TitleNotFound(title_id)
    return title


def _processing(session: Session, title_id: str, job: str) -> tuple[Title, Media]:
    """A title and its media, to which `job` may add."""
    title, media = existing(session, title_id), session.media(title_id, job)
    title.check_job(job)
    if media is None:
        raise MediaNotRead(title_id)
    return title, media


def _media(session: Session, title_id: str, job: str) -> tuple[Title, Media | None]:
    """A title and what `job` made of it, or (empty) what it plays; nothing of what was swept."""
    title = existing(session, title_id)
    media = session.media(title_id, job or title.job)
    if job and (media is None or (media.replaced and not media.renditions)):
        raise MediaNotFound(title_id, job)
    return title, media


def _new_media(session: Session, title_id: str, job: str) -> Media:
    media = Media(title_id=title_id, job=job)
    session.save_media(media, ())
    session.save_details(title_id, job, Details())
    return media


def _fill(session: Session, media: Media, frames: Frames | None, renditions: Sequence[Rendition]) -> Media:
    """Media with what it lacks of frames and renditions."""
    old = media
    if frames is not None and not media.timescale:
        media = replace(media, timescale=frames.timescale, duration_ticks=frames.duration_ticks)
        media = media.with_grid((), frames.starts, planned=frames.planned)
        details = Details(frames=frames.encoded, starts=frames.starts)
        session.save_details(media.title_id, media.job, details)
    if renditions and not media.renditions:
        media = replace(media, renditions=in_order(renditions))
        session.replace_renditions(media)
    if media != old:
        media = replace(media, version=media.version + 1)
        session.save_media(media, ())
    return media


def _check_publication(wanted: Publication) -> None:
    numbers = [segment.number for segment in wanted.segments]
    if len(set(numbers)) != len(numbers):
        raise InvalidArgument("segments", "must have different numbers")
    prefix = f"media/{wanted.title_id}/"
    keys = [("init_object_key", wanted.init.object_key)]
    keys += [(f"segments[{index}].object_key", s.object_key) for index, s in enumerate(wanted.segments)]
    for field, key in keys:
        if not key.startswith(prefix):
            raise InvalidArgument(field, f"must lie below `{prefix}`")
    for index, segment in enumerate(wanted.segments):
        if segment.duration_ticks < 1:
            raise InvalidArgument(f"segments[{index}].duration_ticks", "must be at least 1")
