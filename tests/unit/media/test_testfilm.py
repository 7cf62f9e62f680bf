from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.media.testfilm import (
    NUMBER_BITS,
    SAMPLE_RATE,
    FilmSpec,
    Painter,
    find_beeps,
    find_flashes,
    paint_sound,
    picture_level,
    read_frame_number,
)

SPEC = FilmSpec(seconds=Fraction(5), width=640, height=360, cuts=(1.3,), loud=(3.0, 4.0))


LONG = replace(SPEC, seconds=Fraction(9000), cuts=(), loud=None)


@cache
def painter(spec: FilmSpec) -> Painter:
    return Painter(spec)


def gray(spec: FilmSpec, number: int) -> npt.NDArray[np.uint8]:
    raw = painter(spec).frame(number)
    return np.frombuffer(raw, dtype=np.uint8)[: spec.width * spec.height].reshape(spec.height, spec.width)


@given(st.integers(0, (1 << NUMBER_BITS) - 1))
def test_every_number_is_read_back_from_its_frame(number: int) -> None:
    assert read_frame_number(gray(LONG, number)) == number


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_number_survives_being_made_smaller(factor: int) -> None:
    picture = gray(replace(SPEC, width=1278, height=720), 77)
    small = picture.reshape(720 // factor, factor, 1278 // factor, factor).mean(axis=(1, 3)).astype(np.uint8)
    assert read_frame_number(small) == 77


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_a_plain_picture_carries_no_number(level: int) -> None:
    assert read_frame_number(np.full((360, 640), level, dtype=np.uint8)) is None


def test_a_damaged_cell_is_noticed() -> None:
    picture = gray(SPEC, 77).copy()
    picture[-60:, 300:320] = 255 - picture[-60:, 300:320]
    assert read_frame_number(picture) != 77


def test_one_frame_flashes_at_each_second_and_a_beep_starts_on_it() -> None:
    film = SPEC.timeline
    painter = Painter(SPEC)
    levels = []
    for number in range(film.frame_count):
        luma = np.frombuffer(painter.frame(number), dtype=np.uint8)[: 640 * 360].reshape(360, 640)
        levels.append(picture_level(luma))
    assert find_flashes(levels) == SPEC.second_frames == [0, 29, 59, 89, 119]
    beeps = find_beeps(paint_sound(SPEC))
    assert beeps == pytest.approx(
        [film.pts(frame) / film.timescale for frame in SPEC.second_frames], abs=0.001
    )


def test_the_loud_passage_is_loud_and_cut_fast() -> None:
    sound = paint_sound(SPEC)
    quiet, loud = (
        np.abs(sound[int(at * SAMPLE_RATE) : int((at + 0.4) * SAMPLE_RATE)]).mean() for at in (2.2, 3.2)
    )
    assert loud > 5 * quiet
    cuts = [SPEC.timeline.pts(frame) / SPEC.timeline.timescale for frame in SPEC.cut_frames]
    assert cuts == pytest.approx([1.3, 3.0, 3.4, 3.8], abs=0.04)


def test_the_same_film_is_painted_twice() -> None:
    assert Painter(SPEC).frame(31) == Painter(SPEC).frame(31)
