from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.media.errors import SourceUnsupported
from services.media.time import FrameRun, Timeline
from services.preprocessor.model import PlannedChunk, Window
from services.preprocessor.plan import OFF_SHOT_COST, chunk_cost, plan_chunks, plan_windows

FPS = Fraction(30000, 1001)


def whole(film: Timeline) -> Window:
    return Window(start_frame=0, frame_count=film.frame_count)


def seconds(film: Timeline, chunk: PlannedChunk) -> float:
    return chunk.duration_ticks / film.timescale


films = st.builds(
    Timeline,
    timescale=st.just(1000),
    runs=st.lists(
        st.builds(FrameRun, count=st.integers(1, 400), duration_ticks=st.integers(8, 4000)),
        min_size=1,
        max_size=5,
    ).map(tuple),
).filter(lambda film: film.duration_ticks <= 90_000)


@settings(deadline=None)
@given(films, st.data())
def test_chunks_tile_the_window_exactly_and_never_pass_ten_seconds(
    film: Timeline, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, film.frame_count), max_size=30))
    chunks = plan_chunks(film, whole(film), cuts, 7)
    assert chunks[0].start_frame == 0
    assert [c.start_frame + c.frame_count for c in chunks] == [
        *(c.start_frame for c in chunks[1:]),
        film.frame_count,
    ]
    assert [c.number for c in chunks] == list(range(7, 7 + len(chunks)))
    assert [c.start_ticks for c in chunks] == [film.pts(c.start_frame) for c in chunks]
    assert sum(c.duration_ticks for c in chunks) == film.duration_ticks
    assert max(seconds(film, c) for c in chunks) <= 10
    assert chunks == plan_chunks(film, whole(film), reversed(cuts), 7)


@settings(deadline=None, max_examples=40)
@given(st.integers(9, 90), st.sets(st.integers(1, 2600), max_size=40))
def test_constant_rate_films_are_cut_into_four_to_seven_seconds_but_for_the_end(
    length: int, cuts: set[int]
) -> None:
    film = Timeline.constant(fps=FPS, frame_count=int(length * FPS))
    chunks = plan_chunks(film, whole(film), cuts, 0)
    assert all(3.9 <= seconds(film, c) <= 7.1 for c in chunks[:-1] if length >= 12)
    assert all(c.start_frame in cuts for c in chunks if c.starts_on_shot_change)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(4.1, 6.9), min_size=2, max_size=9))
def test_shots_of_four_to_seven_seconds_become_the_chunks(lengths: list[float]) -> None:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + round(length * 25))
    film = Timeline.constant(fps=Fraction(25), frame_count=starts[-1])
    chunks = plan_chunks(film, whole(film), starts[1:-1], 0)
    assert [c.start_frame for c in chunks] == starts[:-1]
    assert [c.starts_on_shot_change for c in chunks] == [False] + [True] * (len(lengths) - 1)


def test_a_tiny_tail_is_merged_while_the_chunk_stays_within_ten_seconds() -> None:
    film = Timeline.constant(fps=Fraction(25), frame_count=int(7.5 * 25))
    assert len(plan_chunks(film, whole(film), [], 0)) == 1


@pytest.mark.parametrize(("length", "count"), [(0.5, 1), (9, 2), (10.5, 2), (12, 2), (60, 9)])
def test_how_many_chunks_a_film_without_shots_has(length: float, count: int) -> None:
    film = Timeline.constant(fps=Fraction(24), frame_count=int(length * 24))
    assert len(plan_chunks(film, whole(film), [], 0)) == count


def test_known_cuts_of_real_footage_are_honoured_where_they_lie_in_reach() -> None:
    film = Timeline.constant(fps=Fraction(24), frame_count=720)
    starts = {c.start_frame for c in plan_chunks(film, whole(film), [285, 378, 553], 0)}
    # 378 lies 3.9 s after 285: too near for both.
    assert starts & {285, 378, 553} == {285, 553}


def test_one_picture_that_stands_for_longer_than_a_chunk_may_last_is_refused() -> None:
    film = Timeline(timescale=1000, runs=(FrameRun(count=1, duration_ticks=10_001),))
    with pytest.raises(SourceUnsupported):
        plan_chunks(film, whole(film), [], 0)


@given(films)
def test_windows_tile_the_source(film: Timeline) -> None:
    windows = plan_windows(film)
    assert windows[0].start_frame == 0
    assert all(a.end_frame == b.start_frame for a, b in pairwise(windows))
    assert windows[-1].end_frame == film.frame_count


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(30, [30]), (33, [11, 22]), (60, [11, 49]), (120, [11, 54.5, 54.5]), (7200, [11, *[59.9] * 120])],
)
def test_the_opening_is_planned_first_and_the_rest_by_the_minute(seconds: int, expected: list[float]) -> None:
    film = Timeline.constant(fps=Fraction(24), frame_count=24 * seconds)
    windows = [(film.pts(w.end_frame) - film.pts(w.start_frame)) / film.timescale for w in plan_windows(film)]
    assert windows == pytest.approx(expected, abs=0.05)


@given(st.sets(st.integers(1, 11 * 24 - 1)))
def test_the_opening_is_two_chunks_wherever_shots_change(shots: set[int]) -> None:
    film = Timeline.constant(fps=Fraction(24), frame_count=24 * 60)
    chunks = plan_chunks(film, plan_windows(film)[0], shots, 0)
    assert len(chunks) == 2


def test_lengths_outside_four_to_seven_cost_more_than_a_boundary_inside_a_shot() -> None:
    inside = [chunk_cost(ticks, 10) for ticks in range(40, 71)]
    outside = [chunk_cost(ticks, 10) for ticks in [*range(1, 40), *range(71, 101)]]
    assert max(inside) < OFF_SHOT_COST * 10 < min(outside)
