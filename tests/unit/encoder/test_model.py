from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoder.model import Chunk
from services.media.time import FrameRun, Timeline

runs = st.lists(
    st.builds(FrameRun, count=st.integers(1, 120), duration_ticks=st.integers(10, 3000)),
    min_size=1,
    max_size=6,
).map(tuple)


def chunk(frames: tuple[FrameRun, ...], start_ticks: int = 5000, timescale: int = 1000) -> Chunk:
    return Chunk(
        number=3,
        start_ticks=start_ticks,
        timescale=timescale,
        runs=frames,
        previous_frame_ticks=40,
        decode_delay_ticks=80,
    )


@given(runs)
def test_sync_points_are_at_most_two_seconds_apart_unless_one_frame_lasts_longer(
    frames: tuple[FrameRun, ...],
) -> None:
    made = chunk(frames)
    syncs = made.sync_frames
    assert syncs[0] == 0
    assert syncs == sorted(set(syncs))
    ends = [*made.pts, made.start_ticks + made.duration_ticks]
    for start, stop in pairwise([*syncs, made.frame_count]):
        assert ends[stop] - ends[start] <= 2000 or stop - start == 1


@given(runs)
def test_a_chunk_knows_when_each_of_its_frames_is_shown(frames: tuple[FrameRun, ...]) -> None:
    made = chunk(frames)
    film = Timeline(timescale=1000, runs=frames)
    assert made.pts == [5000 + at for at in film.all_pts()]
    assert (made.frame_count, made.duration_ticks) == (film.frame_count, film.duration_ticks)


def test_sync_points_of_a_constant_rate_are_even_parts() -> None:
    film = Timeline.constant(fps=Fraction(30000, 1001), frame_count=161)
    made = chunk(film.runs, start_ticks=0, timescale=30000)
    assert made.sync_frames == [0, 53, 107]


def test_a_chunk_of_just_six_seconds_has_three_parts() -> None:
    assert chunk((FrameRun(count=150, duration_ticks=40),)).sync_frames == [0, 50, 100]


def test_a_short_chunk_has_one_sync_point() -> None:
    assert chunk((FrameRun(count=25, duration_ticks=40),)).sync_frames == [0]


@pytest.mark.parametrize(
    ("start", "at", "previous", "held"),
    [
        (0, 5000, 40, 700),
        (1, 5500, 40, 1200),
        (2, 6000, 500, 0),
        (3, 6040, 40, 0),
        (5, 6580, 40, 500),
    ],
)
def test_a_part_of_a_chunk_knows_the_picture_it_begins_with(
    start: int, at: int, previous: int, held: int
) -> None:
    runs = (
        FrameRun(count=2, duration_ticks=500, held=True),
        FrameRun(count=2, duration_ticks=40),
        FrameRun(count=1, duration_ticks=500),
        FrameRun(count=2, duration_ticks=500, held=True),
    )
    part = replace(chunk(runs), held_ticks=700).part(start, 7)
    assert (part.start_ticks, part.previous_frame_ticks, part.held_ticks) == (at, previous, held)
    assert part.frame_count == 7 - start
