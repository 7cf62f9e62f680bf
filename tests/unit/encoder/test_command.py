from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from services.encoder.command import audio_command, av1_level, cut_point, video_command
from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.media.pictures import PictureFormat
from services.media.time import FrameRun

FPS = Fraction(30000, 1001)
CLOCK = SourceClock(
    stream_index=2,
    time_base=Fraction(1, 30000),
    first_pts=2002,
    container_start_us=-21_333,
    frame_rate=FPS,
)
CHUNK = Chunk(
    number=1,
    start_ticks=161 * 1001,
    timescale=30000,
    runs=(FrameRun(count=120, duration_ticks=1001),),
    previous_frame_ticks=1001,
    decode_delay_ticks=2002,
)
RUNGS = [
    VideoRung(rendition_id="h264-720", width=1280, height=720, crf=23, max_bits_per_second=3_000_000),
    VideoRung(rendition_id="h264-240", width=426, height=240, crf=25, max_bits_per_second=450_000),
]


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_cut_lies_half_way_into_the_frame_before_on_the_containers_clock() -> None:
    at = cut_point(CHUNK, CLOCK)
    assert at is not None
    assert (at - CLOCK.zero) * FPS == Fraction(321, 2)


def test_the_first_chunk_is_not_sought() -> None:
    first = replace(CHUNK, number=0, start_ticks=0, previous_frame_ticks=0)
    assert cut_point(first, CLOCK) is None
    assert "-ss" not in video_command(first, CLOCK, VideoCodec.H264, RUNGS)


def test_one_decode_feeds_every_rung() -> None:
    argv = video_command(CHUNK, CLOCK, VideoCodec.H264, RUNGS)
    assert argv.count("-i") == 1
    assert value(argv, "-filter_complex") == (
        "[0:2]trim=start=5.422083,settb=1/30000,setpts=PTS-(2002),split=2[s0][s1];"
        "[s0]scale=1280:720:flags=bicubic+accurate_rnd+bitexact:out_range=tv,setsar=1,format=yuv420p[v0];"
        "[s1]scale=426:240:flags=bicubic+accurate_rnd+bitexact:out_range=tv,setsar=1,format=yuv420p[v1]"
    )
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "-map"] == ["[v0]", "[v1]"]


def test_the_source_is_only_ever_the_inherited_descriptor() -> None:
    for argv in (
        video_command(CHUNK, CLOCK, VideoCodec.AV1, RUNGS),
        audio_command(
            AudioRung(rendition_id="a", stream_index=1, codec=AudioCodec.AAC, bits_per_second=1), CLOCK, 9
        ),
    ):
        assert value(argv, "-i") == "fd:"
        assert value(argv, "-protocol_whitelist") == "fd,pipe"
        assert "hls" not in value(argv, "-format_whitelist")


def test_frames_are_counted_where_the_container_counts_too_coarsely() -> None:
    coarse = replace(CLOCK, time_base=Fraction(1, 1000), first_pts=67)
    graph = value(video_command(CHUNK, coarse, VideoCodec.H264, RUNGS), "-filter_complex")
    assert "settb=1/30000,setpts=N*1001+161161," in graph


def test_a_seek_takes_a_run_up_longer_than_any_reordering_and_longer_without_an_index() -> None:
    indexed = video_command(CHUNK, CLOCK, VideoCodec.H264, RUNGS)
    coarse = video_command(CHUNK, replace(CLOCK, run_up_seconds=12), VideoCodec.H264, RUNGS)
    assert (value(indexed, "-ss"), value(coarse, "-ss")) == ("4.443416", "0.000000")


def test_where_seeks_find_their_key_frame_they_aim_into_the_first_picture() -> None:
    exact = video_command(CHUNK, replace(CLOCK, exact_seeks=True), VideoCodec.H264, RUNGS)
    far = video_command(CHUNK, CLOCK, VideoCodec.H264, RUNGS)
    assert 1 < float(value(exact, "-ss")) - float(value(far, "-ss")) < 1.05
    # Fields are judged by those of the frames before.
    fields = replace(CLOCK, exact_seeks=True)
    argv = video_command(CHUNK, fields, VideoCodec.H264, RUNGS, picture=PictureFormat(interlaced=True))
    assert value(argv, "-ss") == value(far, "-ss")


def test_interlaced_pictures_are_made_whole_one_for_each_frame() -> None:
    argv = video_command(CHUNK, CLOCK, VideoCodec.H264, RUNGS, picture=PictureFormat(interlaced=True))
    graph = value(argv, "-filter_complex")
    assert "trim=start=5.321983,bwdif=mode=send_frame:deint=interlaced,trim=start=5.422083" in graph


def test_pictures_that_the_source_holds_are_shown_again_from_where_they_begin() -> None:
    runs = (
        FrameRun(count=2, duration_ticks=15_000, held=True),
        FrameRun(count=3, duration_ticks=1001),
        FrameRun(count=1, duration_ticks=15_000, held=True),
    )
    held = replace(CHUNK, runs=runs, held_ticks=30_000)
    graph = value(video_command(held, CLOCK, VideoCodec.H264, RUNGS), "-filter_complex")
    assert graph.startswith(
        "[0:2]trim=start=4.422083,loop=loop=1:size=1:start=4,loop=loop=1:size=1:start=1,settb=1/30000,"
        "setpts='161161+15000*clip(N-0,0,2)+1001*clip(N-2,0,3)+15000*clip(N-5,0,1)',split=2"
    )


@pytest.mark.parametrize(("transfer", "mapped"), [(16, True), (18, True), (1, False)])
def test_only_high_dynamic_range_is_tone_mapped(transfer: int, mapped: bool) -> None:
    picture = PictureFormat(color_primaries=9, color_transfer=transfer, color_matrix=9)
    graph = value(video_command(CHUNK, CLOCK, VideoCodec.H264, RUNGS, picture=picture), "-filter_complex")
    assert ("tonemap" in graph) is mapped
    assert f"setparams=color_primaries=9:color_trc={transfer}:colorspace=9,zscale=w=1280:h=720:" in graph


def test_key_frames_are_forced_half_a_frame_early_and_only_there() -> None:
    argv = video_command(CHUNK, CLOCK, VideoCodec.H264, RUNGS)
    times = [Fraction(time) for time in value(argv, "-force_key_frames").split(",")]
    frames = [time * FPS - 161 for time in times]
    assert CHUNK.sync_frames == [0, 40, 80]
    assert [round(float(frame), 2) for frame in frames] == [-0.5, 39.5, 79.5]
    assert "scenecut=0" in value(argv, "-x264-params")


@pytest.mark.parametrize(
    ("width", "height", "fps", "level"),
    [
        (426, 240, 30, 20),
        (640, 360, 30, 21),
        (854, 480, 30, 30),
        (854, 480, 60, 31),
        (1920, 1080, 30, 40),
        (1920, 1080, 60, 41),
        (8192, 4320, 120, 60),
    ],
)
def test_the_av1_level_is_the_lowest_that_holds_the_picture(
    width: int, height: int, fps: int, level: int
) -> None:
    assert av1_level(replace(RUNGS[0], width=width, height=height), Fraction(fps)) == level


def test_sound_starts_at_the_pictures_zero_and_is_as_long_to_the_sample() -> None:
    rung = AudioRung(
        rendition_id="opus-96-eng-0",
        stream_index=3,
        codec=AudioCodec.OPUS,
        bits_per_second=96_000,
        language="eng",
    )
    argv = audio_command(rung, CLOCK, 574_975)
    assert value(argv, "-filter:a") == (
        "asetpts=PTS-(0.066733)/TB,aresample=48000:async=1:first_pts=0,aformat=channel_layouts=stereo,"
        "apad=whole_len=574975,atrim=end_sample=574975"
    )
    assert (value(argv, "-map"), value(argv, "-metadata:s:a:0")) == ("0:3", "language=eng")
