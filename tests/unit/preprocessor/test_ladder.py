from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.preprocessor.ladder import plan_ladder
from services.preprocessor.model import Ladder, SourceAudio, SourceReport, SourceVideo, TrialPoint


def report(
    width: int, height: int, fps: Fraction = Fraction(25), languages: tuple[str, ...] = ("und",)
) -> SourceReport:
    video = SourceVideo(
        stream_index=0,
        codec="h264",
        width=width,
        height=height,
        display_width=width,
        display_height=height,
        rotation_degrees=0,
        frame_rate=fps,
        variable_frame_rate=False,
        pixel_format="yuv420p",
        interlaced=False,
        frame_count=100,
        time_base=Fraction(1, 25),
        first_pts=0,
        container_start_us=0,
        decode_delay_ticks=2,
    )
    audios = tuple(
        SourceAudio(
            stream_index=index,
            codec="aac",
            sample_rate_hz=44_100,
            channel_count=2,
            language=language,
            default=index == 1,
        )
        for index, language in enumerate(languages, start=1)
    )
    return SourceReport(container="mp4", duration_ns=4_000_000_000, video=video, audios=audios, treatments=())


def sizes(ladder: Ladder) -> dict[str, tuple[int, int]]:
    return {rung.rendition_id: (rung.width, rung.height) for video in ladder.videos for rung in video.rungs}


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (
            1280,
            720,
            {
                "h264-720": (1280, 720),
                "h264-480": (854, 480),
                "h264-360": (640, 360),
                "h264-240": (426, 240),
                "av1-480": (854, 480),
            },
        ),
        (
            1920,
            800,
            {
                "h264-1080": (1920, 800),
                "h264-720": (1280, 534),
                "h264-480": (854, 356),
                "h264-360": (640, 266),
                "h264-240": (426, 178),
                "av1-480": (854, 356),
            },
        ),
        (360, 640, {"h264-360": (360, 640), "h264-240": (240, 426), "av1-360": (360, 640)}),
        (
            1024,
            576,
            {
                "h264-576": (1024, 576),
                "h264-480": (854, 480),
                "h264-360": (640, 360),
                "h264-240": (426, 240),
                "av1-480": (854, 480),
            },
        ),
        (160, 120, {"h264-120": (160, 120), "av1-120": (160, 120)}),
    ],
)
def test_rungs_of_common_shapes(width: int, height: int, expected: dict[str, tuple[int, int]]) -> None:
    assert sizes(plan_ladder(report(width, height))) == expected


@given(st.integers(16, 8192), st.integers(16, 8192))
def test_no_rung_is_larger_than_the_source_and_all_are_even(width: int, height: int) -> None:
    ladder = plan_ladder(report(width, height))
    for wide, high in sizes(ladder).values():
        assert (wide % 2, high % 2) == (0, 0)
        assert wide <= width + 1
        assert high <= height + 1
    names = [rung.rendition_id for video in ladder.videos for rung in video.rungs]
    assert len(names) == len(set(names))
    bits = [rung.max_bits_per_second for rung in ladder.videos[0].rungs]
    assert bits == sorted(bits, reverse=True)


def test_each_sound_track_is_made_in_both_codecs_and_named_by_its_language() -> None:
    ladder = plan_ladder(report(1280, 720, languages=("eng", "und")))
    assert [(rung.rendition_id, rung.stream_index) for rung in ladder.audios] == [
        ("aac-128-eng-0", 1),
        ("aac-128-und-1", 2),
        ("opus-96-eng-0", 1),
        ("opus-96-und-1", 2),
    ]


def test_a_silent_film_has_no_sound_renditions() -> None:
    assert plan_ladder(report(1280, 720, languages=())).audios == ()


def test_quick_films_get_half_as_many_bits_again() -> None:
    slow = plan_ladder(report(1280, 720)).videos[0].rungs[0].max_bits_per_second
    quick = plan_ladder(report(1280, 720, fps=Fraction(60))).videos[0].rungs[0].max_bits_per_second
    assert (slow, quick) == (3_000_000, 4_500_000)


def test_trial_encodes_choose_rungs_and_quality_for_all_codecs() -> None:
    points = [
        TrialPoint(rendition_id=f"h264-{name}", crf=crf, bits_per_second=bits, vmaf=vmaf)
        for name, crf, bits, vmaf in (
            (720, 20, 1_500_000, 99),
            (720, 32, 400_000, 87),
            (480, 20, 700_000, 90),
            (480, 32, 180_000, 78),
            (360, 20, 650_000, 80),
            (360, 32, 170_000, 68),
            (240, 20, 250_000, 64),
            (240, 32, 80_000, 52),
        )
    ]
    made = plan_ladder(report(1280, 720), ("h264", "hevc", "av1"), points)
    h264, hevc, av1 = made.videos
    names = [rung.rendition_id for rung in h264.rungs]
    assert names == ["h264-720", "h264-720-2", "h264-480", "h264-480-2"]
    assert [rung.crf for rung in h264.rungs] == [24.0, 30.0, 29.0, 34.0]
    assert [rung.crf for rung in hevc.rungs] == [rung.crf + 3 for rung in h264.rungs]
    assert [rung.rendition_id for rung in av1.rungs] == ["av1-480"]
    (everywhere,) = plan_ladder(report(1280, 720), ("av1",), points, av1_height=None).videos
    assert [rung.rendition_id for rung in everywhere.rungs] == [
        "av1-720",
        "av1-720-2",
        "av1-480",
        "av1-480-2",
    ]
    assert made.reason.startswith("Chosen by trial encodes: h264-720 for VMAF 95 at ")


def test_without_trials_the_ladder_is_the_fixed_one_and_says_why() -> None:
    made = plan_ladder(report(1280, 720), problem="VMAF could not be measured")
    assert made.reason == "Every usual size up to the source's: VMAF could not be measured."
    assert len(made.videos[0].rungs) == 4
