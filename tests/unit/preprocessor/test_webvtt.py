from __future__ import annotations

from services.preprocessor.webvtt import Cue, parse, placed, write

FILE = """WEBVTT

STYLE
::cue { color: red }

1
00:01.000 --> 00:02.500 line:0
<i>Who</i> is there?
- Nobody.

NOTE a note is no cue

01:00:00.000 --> 01:00:01.000
Late
"""


def test_cues_are_read_with_or_without_hours_and_numbers() -> None:
    assert list(parse(FILE)) == [
        Cue(start_ms=1000, end_ms=2500, text="<i>Who</i> is there?\n- Nobody.", settings="line:0"),
        Cue(start_ms=3_600_000, end_ms=3_601_000, text="Late"),
    ]


def test_cues_are_placed_on_the_titles_time_axis_and_cut_to_it() -> None:
    cues = [
        Cue(start_ms=9_000, end_ms=9_900, text="before"),
        Cue(start_ms=12_000, end_ms=13_000, text="later"),
        Cue(start_ms=9_500, end_ms=10_500, text="across the start"),
        Cue(start_ms=19_000, end_ms=90_000, text="across the end"),
        Cue(start_ms=11_000, end_ms=12_000, text=""),
    ]
    assert placed(iter(cues), 10_000, 10_000) == [
        Cue(start_ms=0, end_ms=500, text="across the start"),
        Cue(start_ms=2_000, end_ms=3_000, text="later"),
        Cue(start_ms=9_000, end_ms=10_000, text="across the end"),
    ]


def test_what_is_written_reads_the_same_again() -> None:
    cues = list(parse(FILE))
    assert list(parse(write(cues))) == cues
    assert write(cues).startswith("WEBVTT\n\n00:00:01.000 --> 00:00:02.500 line:0\n")
