from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.media.time import NS_PER_SECOND, FrameRun, Timeline
from services.playback.errors import CodecNotOffered, OffsetOutOfRange, RenditionNotFound, TitleNotPlayable
from services.playback.model import (
    Fragment,
    Rendition,
    Segment,
    TitleMedia,
    VideoCodec,
    resume_ns,
    sound_start,
)
from tests.unit.playback.media import FILM, audio, segments, title, video

RUNGS = [video("h264-720"), video("h264-480"), video("av1-480")]
SOUNDS = [audio("aac-128-und-0"), audio("aac-128-deu-1"), audio("opus-96-und-0")]
WHOLE = title([*RUNGS, *SOUNDS])


def rung(film: Timeline) -> Rendition:
    return replace(video("h264-720"), timescale=film.timescale)


@st.composite
def titles(draw: Any) -> tuple[TitleMedia, list[Segment]]:
    """A title of any frame durations, cut at any frames into segments of any fragments."""
    durations = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5000)), min_size=1, max_size=6)
    runs = tuple(FrameRun(count=count, duration_ticks=ticks) for count, ticks in draw(durations))
    film = Timeline(timescale=draw(st.sampled_from([24000, 30000, 90000, 1000])), runs=runs)
    syncs = sorted(draw(st.sets(st.integers(0, film.frame_count - 1), max_size=8)) | {0})
    starts = sorted(draw(st.sets(st.sampled_from(syncs))) | {0})
    media = title([rung(film)], timeline=film, segment_starts=tuple(film.pts(start) for start in starts))
    made = []
    for number, (first, end) in enumerate(zip(starts, [*starts[1:], film.frame_count], strict=True)):
        inside = [sync for sync in syncs if first <= sync < end]
        fragments = tuple(
            Fragment(index * 10, 10, film.pts(a), film.pts(b) - film.pts(a))
            for index, (a, b) in enumerate(zip(inside, [*inside[1:], end], strict=True))
        )
        start, length = film.pts(first), film.pts(end) - film.pts(first)
        made.append(Segment(number, start, length, f"{number}", 10 * len(fragments), bytes(32), fragments))
    return media, made


@given(titles(), st.data())
def test_trim_leads_from_the_fragment_to_exactly_the_frame_of_any_offset(
    made: tuple[TitleMedia, list[Segment]], data: st.DataObject
) -> None:
    media, cut = made
    film = media.timeline
    offset_ns = data.draw(st.integers(0, -(-film.duration_ticks * NS_PER_SECOND // film.timescale) - 1))
    target = media.target(offset_ns)
    entry = media.entry(target, rung(film), cut[target.segment])
    assert entry is not None
    exact = Fraction(offset_ns * film.timescale, NS_PER_SECOND)
    shown = [frame for frame, pts in enumerate(film.all_pts()) if pts <= exact]
    assert entry.frame == shown[-1]
    assert entry.media_start_ns + entry.trim_ns == entry.offset_ns == film.ns(entry.frame)
    first = entry.frame - entry.trim_frame_count
    assert entry.media_start_ns == film.ns(first)
    fragment = next(f for f in cut[target.segment].fragments if f.offset_bytes == entry.offset_bytes)
    assert fragment.start_ticks == film.pts(first)
    assert film.pts(entry.frame) < fragment.start_ticks + fragment.duration_ticks


@given(titles())
def test_the_offset_of_every_frame_leads_back_to_it(made: tuple[TitleMedia, list[Segment]]) -> None:
    media, _ = made
    frames = range(media.timeline.frame_count)
    assert [media.target(media.timeline.ns(frame)).frame for frame in frames] == list(frames)


@pytest.mark.parametrize("late_ns", [0, 1, 10**15])
def test_an_offset_at_or_after_the_end_is_out_of_range(late_ns: int) -> None:
    end_ns = -(-FILM.duration_ticks * NS_PER_SECOND // FILM.timescale)
    assert WHOLE.target(end_ns - 1).frame == 359
    with pytest.raises(OffsetOutOfRange, match=r"12\.012 s"):
        WHOLE.target(end_ns + late_ns)


def test_a_title_whose_frames_are_not_known_cannot_be_entered() -> None:
    with pytest.raises(TitleNotPlayable):
        title(RUNGS, timeline=Timeline(timescale=1, runs=())).target(0)


def test_a_frame_beyond_the_published_segment_has_no_entry() -> None:
    grown = title(RUNGS, segment_starts=(0,), planned=False)
    target = grown.target(FILM.ns(200))
    assert (target.segment, grown.entry(target, RUNGS[0], segments(RUNGS[0])[0])) == (0, None)


@pytest.mark.parametrize(
    ("codec", "max_height", "expected"),
    [
        (None, 0, ["h264-720", "h264-480"]),
        (VideoCodec.H264, 719, ["h264-480"]),
        (VideoCodec.H264, 720, ["h264-720", "h264-480"]),
        (VideoCodec.H264, 1, ["h264-480"]),
        (VideoCodec.AV1, 0, ["av1-480"]),
    ],
)
def test_pictures_are_the_best_within_the_wanted_height(
    codec: VideoCodec | None, max_height: int, expected: list[str]
) -> None:
    assert [r.rendition_id for r in WHOLE.pictures(codec, max_height)] == expected


def test_a_codec_that_is_not_there_is_refused_and_no_wish_takes_what_there_is() -> None:
    only = title([video("av1-480")])
    assert [r.rendition_id for r in only.pictures(None, 0)] == ["av1-480"]
    with pytest.raises(CodecNotOffered, match=r"H\.264"):
        only.pictures(VideoCodec.H264, 0)


def test_sound_follows_the_pictures_unless_it_is_asked_for() -> None:
    def chosen(media: TitleMedia, codec: VideoCodec, asked: str = "") -> str | None:
        found = media.sound(codec, asked)
        return found.rendition_id if found else None

    aac_only = title([*RUNGS, SOUNDS[0]])
    assert [
        chosen(WHOLE, VideoCodec.H264),
        chosen(WHOLE, VideoCodec.AV1),
        chosen(WHOLE, VideoCodec.AV1, "aac-128-deu-1"),
        chosen(aac_only, VideoCodec.AV1),
        chosen(title(RUNGS), VideoCodec.H264),
    ] == ["aac-128-und-0", "opus-96-und-0", "aac-128-deu-1", "aac-128-und-0", None]
    for wrong in ("h264-720", "nothing"):
        with pytest.raises(RenditionNotFound):
            WHOLE.sound(VideoCodec.H264, wrong)


def test_sound_begins_with_the_fragment_that_covers_the_first_picture() -> None:
    segment = segments(SOUNDS[0])[1]
    second_ns = -(-segment.fragments[1].start_ticks * NS_PER_SECOND // 48000)
    starts = [sound_start(segment, 48000, at) for at in (0, second_ns - 1, second_ns, 10**12)]
    assert starts == [0, 0, 900, 900]


@pytest.mark.parametrize(
    ("renditions", "expected"),
    [
        ([video("h264-720", 1), video("h264-480", 3), audio("aac-128-und-0", 2, complete=False)], 2),
        ([video("h264-720", 1), audio("aac-128-und-0", 0)], 0),
        ([video("h264-720", 2)], 2),
        # Sound that ends before the pictures do holds nothing up.
        ([video("h264-720", 3), audio("aac-128-und-0", 1, complete=True)], 3),
        ([], 0),
    ],
)
def test_ready_is_what_has_pictures_and_sound_from_the_start(renditions: list[Any], expected: int) -> None:
    assert title(renditions).ready_segment_count == expected


MINUTE_NS = 60 * NS_PER_SECOND


@pytest.mark.parametrize(
    ("position_ns", "duration_ns", "expected"),
    [
        (0, MINUTE_NS, 0),
        (33_366_666_667, MINUTE_NS, 33_366_666_667),
        (57 * NS_PER_SECOND - 1, MINUTE_NS, 57 * NS_PER_SECOND - 1),
        (57 * NS_PER_SECOND, MINUTE_NS, 0),
        (120 * MINUTE_NS - 30 * NS_PER_SECOND - 1, 120 * MINUTE_NS, 120 * MINUTE_NS - 30 * NS_PER_SECOND - 1),
        (120 * MINUTE_NS - 30 * NS_PER_SECOND, 120 * MINUTE_NS, 0),
        (5, 0, 0),
    ],
)
def test_a_finished_title_starts_again_and_any_other_resumes(
    position_ns: int, duration_ns: int, expected: int
) -> None:
    assert resume_ns(position_ns, duration_ns) == expected
