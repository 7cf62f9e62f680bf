"""Titles, their media, and the rule that derives a title's state from what is published."""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from services.catalog.errors import (
    GridChanged,
    InitSegmentDiffers,
    MediaComplete,
    MediaExists,
    MediaFailed,
    MediaReplaced,
    NotTheJob,
    SegmentAfterLast,
    SegmentOutsideGrid,
    TitleChanged,
)
from services.catalog.rights import Window, checked
from services.catalog.series import Place
from services.catalog.text import TitleText
from services.media.time import ticks_to_ns_up
from services.runtime.errors import InvalidArgument

#: A title is playable when the segments that cover its first ten seconds are there.
OPENING_S = 10


class State(enum.Enum):
    """How far a title is; see `kino.catalog.v1.Title.State`."""

    CREATED = 1
    PROCESSING = 2
    PLAYABLE = 3
    COMPLETE = 4
    FAILED = 5


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Whose eyes a title is seen with."""

    #: `users/{user}` or `services/{service}`.
    subject: str
    #: Operators and services see every title.
    sees_all: bool = False


@dataclass(frozen=True, kw_only=True)
class Title:
    """A film. Changing it gives a new value with the next version."""

    title_id: str
    owner: str
    text: TitleText
    create_time: datetime
    update_time: datetime
    version: int = 1
    #: `jobs/{job}` whose media plays or will play first; empty without a source.
    job: str = ""
    #: `jobs/{job}` whose media takes the place of what plays once it is playable; empty: none.
    next_job: str = ""
    #: Why that one failed, a serialised `google.rpc.Status`.
    next_error: bytes | None = None
    duration_ns: int | None = None
    #: A serialised `google.rpc.Status`; not read here.
    error: bytes | None = None
    playable_time: datetime | None = None
    complete_time: datetime | None = None
    delete_time: datetime | None = None
    #: Whether it is kept from viewers.
    unpublished: bool = False
    #: When and where it may be watched; none: always and everywhere.
    rights: tuple[Window, ...] = ()
    #: Id of the picture that stands for it; empty: none.
    artwork: str = ""
    #: The moment of the title whose frame that picture is; None for another picture.
    artwork_frame_ns: int | None = None
    #: Whether that frame is of a source that was replaced.
    artwork_stale: bool = False
    #: Where it stands in a series; read with the title, never written with it.
    place: Place | None = None

    @property
    def state(self) -> State:
        """Derived from the moments recorded together with what caused them."""
        if self.error is not None:
            return State.FAILED
        if self.complete_time is not None:
            return State.COMPLETE
        if self.playable_time is not None:
            return State.PLAYABLE
        return State.PROCESSING if self.job else State.CREATED

    def state_of(self, media: Media) -> State:
        """How far one of its media is, also one that is on its way or was replaced."""
        if media.job == self.job:
            return self.state
        if media.job == self.next_job and self.next_error is not None:
            return State.FAILED
        playable, complete = media.progress()
        return State.COMPLETE if complete else State.PLAYABLE if playable else State.PROCESSING

    @property
    def visible(self) -> bool:
        """Whether viewers see it. What was playable before it failed stays so."""
        return self.playable_time is not None and self.delete_time is None and not self.unpublished

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return f"v{self.version}"

    def seen_by(self, viewer: Viewer) -> bool:
        """Whether this title exists for `viewer`."""
        if self.delete_time is not None:
            return False
        return self.visible or self.managed_by(viewer)

    def managed_by(self, viewer: Viewer) -> bool:
        """Whether `viewer` may change it, and watch it whatever its rights are."""
        return viewer.sees_all or viewer.subject == self.owner

    def changed(self, now: datetime, **fields: object) -> Title:
        """This title with other values, as its next version."""
        return replace(self, **fields, version=self.version + 1, update_time=now)  # type: ignore[arg-type]

    def edited(self, now: datetime, text: TitleText, rights: tuple[Window, ...] | None, etag: str) -> Title:
        """With another text and, unless None, other rights.

        Raises `TitleChanged` when `etag` is given and old, `InvalidArgument`.
        """
        if etag and etag != self.etag:
            raise TitleChanged(self.title_id)
        rights = self.rights if rights is None else checked(rights)
        if (text, rights) == (self.text, self.rights):
            return self
        return self.changed(now, text=text.check(), rights=rights)

    def shown(self, now: datetime, *, published: bool) -> Title:
        """Shown to viewers, or kept from them."""
        return self if self.unpublished != published else self.changed(now, unpublished=not published)

    def check_job(self, job: str) -> None:
        """Raises `NotTheJob` or `MediaFailed` unless `job` may add media."""
        if job not in (self.job, self.next_job):
            raise NotTheJob(self.title_id, job)
        if (self.error if job == self.job else self.next_error) is not None:
            raise MediaFailed(self.title_id)

    def check_free(self, job: str, *, replaces: bool) -> None:
        """Raises `MediaExists` when another job's media is there, hasn't failed, and isn't to be replaced."""
        if not replaces and self.job not in ("", job) and job != self.next_job and self.error is None:
            raise MediaExists(self.title_id, self.job)

    def begun(self, now: datetime, job: str, duration_ns: int | None, *, replaces: bool = False) -> Title:
        """With a job and, once known, its length. Another job begins anew; a failed one goes on.

        One that replaces what can be played waits until it can be played itself.
        """
        if job == self.next_job:
            return self if self.next_error is None else self.changed(now, next_error=None)
        if job == self.job:
            if self.error is None and duration_ns == self.duration_ns:
                return self
            return self.changed(now, error=None, duration_ns=duration_ns)
        if replaces and self.playable_time is not None:
            return self.changed(now, next_job=job, next_error=None)
        return self._of_job(now, job, duration_ns)

    def _of_job(self, now: datetime, job: str, duration_ns: int | None, **moments: datetime | None) -> Title:
        """With the media of another job, and nothing left of those before."""
        cleared = {"error": None, "playable_time": None, "complete_time": None}
        none = {"next_job": "", "next_error": None, "artwork_stale": self.artwork_frame_ns is not None}
        return self.changed(now, job=job, duration_ns=duration_ns, **cleared | none | moments)

    def failed(self, now: datetime, job: str, error: bytes) -> Title:
        """With the reason why its processing failed; the first one stays."""
        if job not in (self.job, self.next_job):
            raise NotTheJob(self.title_id, job)
        if job == self.next_job:
            return self if self.next_error is not None else self.changed(now, next_error=error)
        if self.complete_time is not None:
            raise MediaComplete(self.title_id)
        return self if self.error is not None else self.changed(now, error=error)

    def published(self, now: datetime, media: Media) -> Title:
        """With the moments at which `media` made it playable or complete; then a replacement takes over."""
        playable, complete = media.progress()
        if media.job == self.next_job:
            if not playable:
                return self
            moments = {"playable_time": now, "complete_time": now if complete else None}
            return self._of_job(now, media.job, media.duration_ns, **moments)
        if (playable, complete) == (self.playable_time is not None, self.complete_time is not None):
            return self
        return self.changed(
            now,
            playable_time=self.playable_time or (now if playable else None),
            complete_time=self.complete_time or (now if complete else None),
        )


class Kind(enum.Enum):
    """What a rendition carries."""

    VIDEO = "video"
    SOUND = "sound"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A published piece of a rendition, with what the counters need of it."""

    number: int
    duration_ticks: int
    object_key: str
    size_bytes: int
    sha256: bytes
    #: The whole segment in the contract's encoding; immutable, handed on unread.
    encoded: bytes


@dataclass(frozen=True, kw_only=True)
class InitSegment:
    """What every segment of a rendition needs first."""

    object_key: str
    sha256: bytes
    codecs: str
    timescale: int


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """A coded version, planned or published, with counters kept so that nothing is ever counted anew."""

    rendition_id: str
    kind: Kind
    h264: bool = False
    #: Of pictures; 0 for sound.
    height: int = 0
    #: As planned, in the contract's encoding; handed on unread.
    encoded: bytes
    init: InitSegment | None = None
    #: Segments there, in any order.
    published_count: int = 0
    #: Segments there without a gap from the start.
    ready_count: int = 0
    size_sum_bytes: int = 0
    duration_sum_ticks: int = 0
    peak_bits_per_second: int = 0
    #: Number of the last segment, where its maker said so.
    last_number: int | None = None

    @property
    def mean_bits_per_second(self) -> int:
        """Over all published segments."""
        if self.init is None or not self.duration_sum_ticks:
            return 0
        return self.size_sum_bytes * 8 * self.init.timescale // self.duration_sum_ticks

    def segment_count(self, media: Media) -> int | None:
        """How many segments it will have, None while unknown. Sound may end before the pictures."""
        if self.kind is Kind.SOUND and self.last_number is not None:
            return self.last_number + 1
        return media.segment_count if media.planned else None

    def complete(self, media: Media) -> bool:
        """Whether every segment is published."""
        return self.ready_count == self.segment_count(media)

    def with_init(self, init: InitSegment) -> Rendition:
        """With its init segment; the first one stays. Raises `InitSegmentDiffers`."""
        if self.init is None:
            return replace(self, init=init)
        if (self.init.sha256, self.init.timescale) != (init.sha256, init.timescale):
            raise InitSegmentDiffers(self.rendition_id)
        return self

    def with_last(self, number: int) -> Rendition:
        """With the number of its last segment, for good. Raises `SegmentAfterLast`."""
        if self.last_number not in (None, number) or self.published_count > number + 1:
            raise SegmentAfterLast(
                self.rendition_id, number, max(self.last_number or 0, self.published_count - 1)
            )
        return replace(self, last_number=number)

    def check_numbers(self, media: Media, numbers: Sequence[int]) -> None:
        """Raises `SegmentOutsideGrid` or `SegmentAfterLast` for numbers that can't be."""
        highest = max(numbers)
        if highest >= media.segment_count:
            raise SegmentOutsideGrid(self.rendition_id, highest, media.segment_count)
        if self.last_number is not None and highest > self.last_number:
            raise SegmentAfterLast(self.rendition_id, self.last_number, highest)

    def counted(self, new: Sequence[Segment], ready_count: int) -> Rendition:
        """With newly published segments added; needs `init`."""
        assert self.init is not None
        scale = 8 * self.init.timescale
        peaks = [-(-segment.size_bytes * scale // segment.duration_ticks) for segment in new]
        return replace(
            self,
            published_count=self.published_count + len(new),
            ready_count=ready_count,
            size_sum_bytes=self.size_sum_bytes + sum(segment.size_bytes for segment in new),
            duration_sum_ticks=self.duration_sum_ticks + sum(segment.duration_ticks for segment in new),
            peak_bits_per_second=max([self.peak_bits_per_second, *peaks]),
        )


def in_order(renditions: Sequence[Rendition]) -> tuple[Rendition, ...]:
    """Best pictures first, then sound as given. Raises `InvalidArgument` for an id that comes twice."""
    if len({rendition.rendition_id for rendition in renditions}) != len(renditions):
        raise InvalidArgument("renditions", "must have different ids")
    return tuple(sorted(renditions, key=lambda r: (r.kind is Kind.SOUND, -r.height)))


@dataclass(frozen=True, kw_only=True)
class Media:
    """What one job made of a title, without frames, grid and segments, which are kept apart."""

    title_id: str
    job: str
    #: Changes with every change.
    version: int = 1
    #: Ticks per second of the time axis; 0 until the source was read.
    timescale: int = 0
    #: End of the last frame.
    duration_ticks: int = 0
    segment_count: int = 0
    #: True when the grid covers the whole source.
    planned: bool = False
    #: How many segments cover the opening; None until the grid reaches so far.
    opening_count: int | None = None
    #: Whether another job's media took its place.
    replaced: bool = False
    renditions: tuple[Rendition, ...] = ()

    @property
    def duration_ns(self) -> int | None:
        """Length of the title; None until the source was read."""
        return ticks_to_ns_up(self.duration_ticks, self.timescale) if self.timescale else None

    @property
    def etag(self) -> str:
        """Changes with every change, and with the job."""
        return f"m{self.version}-{self.job.removeprefix('jobs/')}"

    def check_kept(self) -> None:
        """Raises `MediaReplaced` once another job's media took its place."""
        if self.replaced:
            raise MediaReplaced(self.title_id, self.job)

    def rendition(self, rendition_id: str) -> Rendition | None:
        """One rendition, or None."""
        return next((r for r in self.renditions if r.rendition_id == rendition_id), None)

    def with_rendition(self, changed: Rendition) -> Media:
        """With one rendition replaced."""
        renditions = tuple(changed if r.rendition_id == changed.rendition_id else r for r in self.renditions)
        return replace(self, renditions=renditions)

    def with_grid(self, old: Sequence[int], starts: Sequence[int], *, planned: bool) -> Media:
        """With the segment starts known now. Raises `GridChanged`, `InvalidArgument`."""
        if list(starts[: len(old)]) != list(old) or (
            self.planned and (not planned or len(starts) != len(old))
        ):
            raise GridChanged(self.title_id)
        _check_grid(starts, self.duration_ticks)
        if planned and not starts:
            raise InvalidArgument("planned", "needs segment starts")
        count = bisect_left(starts, OPENING_S * self.timescale)
        known = planned or count < len(starts)
        return replace(
            self, segment_count=len(starts), planned=planned, opening_count=count if known else None
        )

    def progress(self) -> tuple[bool, bool]:
        """Whether the title can be played from its start, and whether all of it is there."""
        complete = self.planned and bool(self.renditions) and all(r.complete(self) for r in self.renditions)
        return complete or self._playable(), complete

    def _playable(self) -> bool:
        videos = [r for r in self.renditions if r.kind is Kind.VIDEO]
        sounds = [r for r in self.renditions if r.kind is Kind.SOUND]
        lowest = min([r for r in videos if r.h264] or videos, key=lambda r: r.height, default=None)
        if lowest is None or not self._opened(lowest):
            return False
        return not sounds or any(self._opened(sound) for sound in sounds)

    def _opened(self, rendition: Rendition) -> bool:
        if not self.opening_count:
            return False
        wanted = self.opening_count
        if rendition.kind is Kind.SOUND and rendition.last_number is not None:
            wanted = min(wanted, rendition.last_number + 1)
        return rendition.ready_count >= wanted


def _check_grid(starts: Sequence[int], duration_ticks: int) -> None:
    if not starts:
        return
    if starts[0] != 0 or any(a >= b for a, b in pairwise(starts)) or starts[-1] >= duration_ticks:
        raise InvalidArgument("segment_start_ticks", "must begin with 0, rise, and lie within the title")


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The frames of a source: as encoded in the contract, and what the rules need of them."""

    timescale: int
    duration_ticks: int
    encoded: bytes
    #: Segment starts that are planned already.
    starts: tuple[int, ...] = ()
    planned: bool = False


@dataclass(frozen=True, kw_only=True)
class Details:
    """The parts of a media that may be large and are only handed on."""

    #: The frame runs in the contract's encoding.
    frames: bytes = b""
    #: Segment starts in ticks.
    starts: tuple[int, ...] = ()
    #: The highlights in the contract's encoding.
    highlights: bytes = b""
    #: Text tracks, chapters and storyboard in the contract's encoding.
    extras: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Objects to collect: all below a title or series (no job), or below one replaced job or picture."""

    title_id: str
    #: `jobs/…`, `artwork/…`, or empty.
    job: str
    due_time: datetime
    #: How many times the prefix is still swept; more than once, because a task may still be writing.
    rounds: int

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The prefixes of their keys."""
        if self.job.startswith("artwork/"):
            return (f"artwork/{self.title_id}/{self.job.removeprefix('artwork/')}/",)
        if self.job:
            return (f"media/{self.title_id}/{self.job.removeprefix('jobs/')}/",)
        return f"media/{self.title_id}/", f"sources/{self.title_id}/", f"artwork/{self.title_id}/"

    @property
    def source_key(self) -> str:
        """Key of the source that goes with a replaced job; empty for other sweeps."""
        is_job = self.job.startswith("jobs/")
        return f"sources/{self.title_id}/{self.job.removeprefix('jobs/')}" if is_job else ""
