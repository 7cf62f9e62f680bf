from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.media.time import (
    NS_PER_SECOND,
    FrameRun,
    Timeline,
    rescale,
    run_lengths,
    segment_of,
    ticks_to_ns_up,
    with_held_frames,
)

RATES = [
    Fraction(24000, 1001),
    Fraction(30000, 1001),
    Fraction(60000, 1001),
    Fraction(25),
    Fraction(24),
    Fraction(12),
]

timelines = st.builds(
    Timeline,
    timescale=st.sampled_from([1000, 15360, 24000, 30000, 48000, 90000, 1_000_000]),
    runs=st.lists(
        st.builds(FrameRun, count=st.integers(1, 40), duration_ticks=st.integers(1, 9000)),
        min_size=1,
        max_size=8,
    ).map(tuple),
)


@pytest.mark.parametrize("fps", RATES)
def test_every_frame_of_a_two_hour_film_is_found_again_by_its_own_nanoseconds(fps: Fraction) -> None:
    film = Timeline.constant(fps=fps, frame_count=int(7200 * fps))
    frames = [*range(0, film.frame_count, 97), film.frame_count - 1]
    assert [film.frame_at(film.ns(frame)) for frame in frames] == frames


@given(timelines)
def test_every_frame_of_any_timeline_is_found_again_by_its_own_nanoseconds(film: Timeline) -> None:
    frames = list(range(film.frame_count))
    if film.timescale < 1_000_000_000:
        assert [film.frame_at(film.ns(frame)) for frame in frames] == frames


@given(timelines)
def test_a_nanosecond_before_a_frame_the_one_before_it_is_on_show(film: Timeline) -> None:
    # Whole microseconds are a browser's, and snapped.
    frames = [frame for frame in range(1, film.frame_count) if (film.ns(frame) - 1) % 1000]
    assert [film.frame_at(film.ns(frame) - 1) for frame in frames] == [frame - 1 for frame in frames]


@given(timelines)
def test_pts_agrees_with_the_whole_list_and_ends_at_the_duration(film: Timeline) -> None:
    listed = [*film.all_pts(), film.duration_ticks]
    assert [film.pts(frame) for frame in range(film.frame_count + 1)] == listed


@given(timelines, st.data())
def test_parts_put_together_are_the_whole(film: Timeline, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, film.frame_count))
    parts = [*film.part(0, cut), *film.part(cut, film.frame_count)]
    durations = [run.duration_ticks for run in parts for _ in range(run.count)]
    assert run_lengths(durations) == run_lengths(r.duration_ticks for r in film.runs for _ in range(r.count))


@given(timelines)
def test_a_timeline_is_rebuilt_from_its_times_whatever_their_origin(film: Timeline) -> None:
    shifted = [at + 12345 for at in film.all_pts()]
    rebuilt = Timeline.from_pts(timescale=film.timescale, pts=shifted, end=film.duration_ticks + 12345)
    assert list(rebuilt.all_pts()) == list(film.all_pts())
    assert rebuilt.duration_ticks == film.duration_ticks


@pytest.mark.parametrize("fps", RATES)
def test_a_browsers_truncated_microseconds_name_the_frame_it_shows(fps: Fraction) -> None:
    film = Timeline.constant(fps=fps, frame_count=5000)
    shown = [film.pts(frame) * 1_000_000 // film.timescale for frame in range(film.frame_count)]
    assert [film.frame_at(us * 1000) for us in shown] == list(range(film.frame_count))


def test_plain_comparison_of_truncated_microseconds_would_be_a_frame_early() -> None:
    film = Timeline.constant(fps=Fraction(24000, 1001), frame_count=10)
    assert film.frame_at_ticks(Fraction(41_708 * 24000, 1_000_000)) == 0
    assert [film.frame_at(41_707_000), film.frame_at(41_708_000), film.frame_at(41_707_999)] == [0, 1, 0]


def test_times_outside_the_film_are_its_first_and_last_frame() -> None:
    film = Timeline.constant(fps=Fraction(30000, 1001), frame_count=300)
    assert [film.frame_at(-1), film.frame_at(0), film.frame_at(10**12)] == [0, 0, 299]


def test_an_offset_falls_on_the_frame_below_it() -> None:
    film = Timeline.constant(fps=Fraction(30000, 1001), frame_count=1800)
    offset = Fraction(334, 10)
    assert film.frame_at(33_400_000_000) == int(offset * Fraction(30000, 1001)) == 1000


def test_variable_rate_is_not_constant_and_constant_is() -> None:
    variable = Timeline.from_pts(timescale=1000, pts=[0, 42, 83, 125], end=167)
    assert variable.constant_rate is None
    assert Timeline.constant(fps=Fraction(25), frame_count=9).constant_rate == Fraction(25)


def test_the_decode_delay_covers_the_longest_pair_of_frames() -> None:
    film = Timeline.from_pts(timescale=1000, pts=[0, 10, 100, 110], end=120)
    assert [film.reorder_ticks(0), film.reorder_ticks(1), film.reorder_ticks(2)] == [0, 90, 100]


def test_frames_outside_the_timeline_are_refused() -> None:
    film = Timeline.constant(fps=Fraction(25), frame_count=9)
    with pytest.raises(IndexError):
        film.pts(10)
    with pytest.raises(IndexError):
        film.part(3, 10)


def test_times_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="positive count and duration"):
        Timeline.from_pts(timescale=1000, pts=[0, 42, 42], end=50)


@given(st.integers(0, 10**12), st.integers(1, 10**8))
def test_ticks_survive_the_way_through_nanoseconds(ticks: int, timescale: int) -> None:
    assert ticks_to_ns_up(ticks, timescale) * timescale // NS_PER_SECOND == ticks


def test_segments_are_looked_up_by_their_starts() -> None:
    starts = [0, 5000, 9000]
    asked: list[int | Fraction] = [-5, 0, 4999, 5000, Fraction(17999, 2), 9000, 99999]
    assert [segment_of(starts, ticks) for ticks in asked] == [0, 0, 0, 1, 1, 2, 2]


def test_rescaling_is_exact() -> None:
    assert rescale(1001, 30000, 48000) == Fraction(8008, 5)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5000)), min_size=1, max_size=8))
def test_held_pictures_keep_their_times_and_none_stands_for_long(runs: list[tuple[int, int]]) -> None:
    film = Timeline(
        timescale=1000, runs=tuple(FrameRun(count=count, duration_ticks=ticks) for count, ticks in runs)
    )
    shown = with_held_frames(film, 500)
    assert max(run.duration_ticks for run in shown.runs) <= 500
    begins = [frame for frame in range(shown.frame_count) if shown.picture_frame(frame) == frame]
    assert [shown.pts(frame) for frame in begins] == list(film.all_pts())
    assert shown.duration_ticks == film.duration_ticks
    assert len(shown.pictures(0, shown.frame_count)) == film.frame_count
    middle = shown.frame_count // 2
    assert sum(shown.pictures(middle, shown.frame_count)) == shown.frame_count - middle
