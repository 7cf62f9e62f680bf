from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from cli.stream_check import CheckFailed, Decoded, Picture, Verdict, judge
from kino.playback.v1.resources_pb2 import PlayHeader
from services.media.testfilm import FilmSpec

FILM = FilmSpec()
OFFSET = Fraction(334, 10)
WANTED = 1000
FIRST = 960


def stream() -> tuple[PlayHeader, Decoded]:
    header = PlayHeader(trim_frame_count=WANTED - FIRST, frame_number=WANTED)
    header.media_start.FromNanoseconds(FILM.timeline.ns(FIRST))
    header.offset.FromNanoseconds(FILM.timeline.ns(WANTED))
    header.trim.FromNanoseconds(FILM.timeline.ns(WANTED) - FILM.timeline.ns(FIRST))
    flashes = set(FILM.second_frames)
    pictures = [
        Picture(number=number, time=number / FILM.fps, level=235.0 if number in flashes else 80.0)
        for number in range(FIRST, 1200)
    ]
    beeps = [float(number / FILM.fps) + 0.001 for number in sorted(flashes) if FIRST < number < 1200]
    return header, Decoded(
        pictures=pictures, sound_start=FIRST / FILM.fps, sound_end=1200 / FILM.fps, beeps=beeps
    )


def test_a_good_stream_is_described() -> None:
    header, decoded = stream()

    verdict = judge(FILM, header, decoded, offset=OFFSET)

    assert verdict.worst_sync_ms == pytest.approx(1.0)
    assert replace(verdict, worst_sync_ms=None) == Verdict(
        frame_count=240, first_frame=FIRST, wanted_frame=WANTED, flash_count=7, worst_sync_ms=None
    )


def test_a_lost_frame_is_found() -> None:
    header, decoded = stream()
    pictures = [picture for picture in decoded.pictures if picture.number != 1100]

    with pytest.raises(CheckFailed, match="Frame numbers in a row"):
        judge(FILM, header, replace(decoded, pictures=pictures), offset=OFFSET)


def test_a_frame_shown_one_tick_late_is_found() -> None:
    header, decoded = stream()
    late = [replace(picture, time=picture.time + Fraction(1, 30_000)) for picture in decoded.pictures]

    with pytest.raises(CheckFailed, match="Time of frame 960"):
        judge(FILM, header, replace(decoded, pictures=late), offset=OFFSET)


@pytest.mark.parametrize("error", [-1, 1])
def test_a_trim_that_is_one_frame_off_is_found(error: int) -> None:
    header, decoded = stream()
    header.trim_frame_count += error

    with pytest.raises(CheckFailed, match="Frame the trim leads to"):
        judge(FILM, header, decoded, offset=OFFSET)


def test_a_header_that_names_another_frame_is_found() -> None:
    header, decoded = stream()

    with pytest.raises(CheckFailed, match="Frame the header names"):
        judge(FILM, header, decoded, offset=OFFSET + Fraction(1, 10))


def test_a_trim_one_nanosecond_off_is_found() -> None:
    header, decoded = stream()
    header.trim.nanos += 1

    with pytest.raises(CheckFailed, match="Trim in the header"):
        judge(FILM, header, decoded, offset=OFFSET)


def test_sound_that_is_eleven_milliseconds_late_is_found() -> None:
    header, decoded = stream()
    beeps = [at + 0.010 for at in decoded.beeps]

    with pytest.raises(CheckFailed, match="Distance of beep and flash"):
        judge(FILM, header, replace(decoded, beeps=beeps), offset=OFFSET)


def test_a_missing_beep_is_found() -> None:
    header, decoded = stream()

    with pytest.raises(CheckFailed, match="Number of beeps"):
        judge(FILM, header, replace(decoded, beeps=decoded.beeps[1:]), offset=OFFSET)
