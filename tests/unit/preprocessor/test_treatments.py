from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from services.preprocessor.model import SourceAudio, SourceText, SourceVideo, TreatmentKind
from services.preprocessor.treatments import Lengths, treatments

VIDEO = SourceVideo(
    stream_index=0,
    codec="h264",
    width=1280,
    height=720,
    display_width=1280,
    display_height=720,
    rotation_degrees=0,
    frame_rate=Fraction(25),
    variable_frame_rate=False,
    pixel_format="yuv420p",
    interlaced=False,
    frame_count=100,
    time_base=Fraction(1, 25),
    first_pts=0,
    container_start_us=0,
    decode_delay_ticks=2,
)
SOUND = SourceAudio(
    stream_index=1, codec="aac", sample_rate_hz=48_000, channel_count=2, language="und", default=True
)


def lengths(start: Fraction, end: Fraction) -> Lengths:
    return Lengths(picture_end=Fraction(4), longest_picture=Fraction(1, 25), sounds={1: (start, end)})


def test_an_ordinary_source_is_left_as_it_is() -> None:
    assert treatments(VIDEO, [SOUND], [], [], lengths(Fraction(0), Fraction(4))) == ()


def test_what_nobody_hears_is_not_mended() -> None:
    close = lengths(Fraction(-1, 20), Fraction(81, 20))
    assert treatments(VIDEO, [SOUND], [], [], close) == ()
    assert close.picture_hold == 0


def test_sound_is_padded_cut_or_held_for_as_it_lies_to_the_picture() -> None:
    late_and_long = treatments(VIDEO, [SOUND], [], [], lengths(Fraction(1), Fraction(6)))
    early_and_short = treatments(VIDEO, [SOUND], [], [], lengths(Fraction(-1), Fraction(3)))
    assert [one.kind for one in late_and_long] == [TreatmentKind.EXTEND_PICTURE, TreatmentKind.PAD_SOUND]
    assert [one.kind for one in early_and_short] == [TreatmentKind.CUT_SOUND, TreatmentKind.PAD_SOUND]


def test_tracks_that_are_left_out_are_named() -> None:
    drawn = SourceText(stream_index=3, codec="pgssub", language="eng", label="", default=False, forced=False)
    said = treatments(VIDEO, [SOUND] * 9, [replace(drawn, codec="ass")] * 33, [drawn], None)
    assert [(one.kind, one.stream_index) for one in said] == [
        (TreatmentKind.DROP_TRACK, 1),
        (TreatmentKind.DROP_TRACK, 3),
        (TreatmentKind.DROP_TRACK, 3),
    ]
    assert said[1].reason == "Text track 3 is left out: 32 are made at most."
    assert said[2].reason == "Text track 3 is left out: pgssub holds pictures of text."
