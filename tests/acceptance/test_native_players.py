"""Players outside of browsers at the gateway's HLS and DASH: FFmpeg 9, and mpv with Debian 12's FFmpeg 5.1.

Not asked here, because they can't: FFmpeg 5.1 does not seek in anybody's HLS of fMP4, nor in DASH while it
shows subtitles; FFmpeg 9 misses the
first fragment after a seek into a first segment of several (not in HLS that it muxed itself: not explained).
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin

import av
import imageio_ffmpeg
import numpy as np
import pytest

from cli.playing import end_playback, start_playback
from kino.playback.v1 import playback_pb2
from services.media.testfilm import read_frame_number
from tests.support.stack import Stack
from tests.support.worded import WORDED

#: In each segment after the first, one of them the first of its segment.
FRAMES = (WORDED.timeline.frame_at_ticks(152152), 222, 368, 530)


@pytest.fixture
async def started(stack: Stack, worded: str) -> AsyncIterator[playback_pb2.StartPlaybackResponse]:
    async with stack.connect("viewer") as viewer:
        answer = await start_playback(viewer, worded, "native player")
        yield answer
        await end_playback(viewer, answer.lease.token)


def seconds(frame: int) -> str:
    """When a frame is shown, as options take it."""
    return f"{float(frame / WORDED.fps):.6f}"


def ffmpeg_shows(url: str, frame: int) -> list[int | None]:
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-ss", seconds(frame), "-i", url]
    argv += [
        "-map",
        "0:v:0",
        "-frames:v",
        "3",
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "gray",
        "pipe:1",
    ]
    done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    pictures = np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, WORDED.height, WORDED.width)
    return [read_frame_number(picture) for picture in pictures]


@pytest.mark.parametrize("kind", ["hls", "dash"])
async def test_ffmpeg_begins_at_the_frame_that_was_asked_for(
    stack: Stack, started: playback_pb2.StartPlaybackResponse, kind: str
) -> None:
    url = urljoin(stack.gateway, getattr(started, f"{kind}_path"))
    shown = [await asyncio.to_thread(ffmpeg_shows, url, frame) for frame in FRAMES]
    assert shown == [[frame, frame + 1, frame + 2] for frame in FRAMES]


def mpv_shows(url: str, folder: Path, *options: str) -> tuple[list[int | None], str]:
    """The first three frames that mpv shows, and what it says meanwhile."""
    argv = ["mpv", "--no-config", "--ao=null", "--untimed", "--frames=3", *options]
    argv += ["--vo=image", "--vo-image-format=png", f"--vo-image-outdir={folder}", url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = []
    for path in sorted(folder.glob("*.png")):
        with av.open(str(path)) as picture:
            gray = next(picture.decode(video=0)).to_ndarray(format="gray").astype(np.uint8)
            numbers.append(read_frame_number(gray))
    return numbers, done.stdout


@pytest.mark.mpv
@pytest.mark.parametrize("kind", ["hls", "dash"])
async def test_mpv_plays_in_the_language_that_was_asked_for(
    stack: Stack, started: playback_pb2.StartPlaybackResponse, tmp_path: Path, kind: str
) -> None:
    url = urljoin(stack.gateway, getattr(started, f"{kind}_path"))
    shown, said = await asyncio.to_thread(mpv_shows, url, tmp_path, "--alang=de", "--slang=de")
    assert shown == [0, 1, 2]
    assert re.search(r"\(\+\) Audio --aid=\d --alang=de", said)
    # FFmpeg's HLS reads no WebVTT unless it is told to.
    assert bool(re.search(r"\(\+\) Subs +--sid=\d --slang=de", said)) == (kind == "dash")


@pytest.mark.mpv
async def test_mpv_begins_at_the_frame_that_was_asked_for(
    stack: Stack, started: playback_pb2.StartPlaybackResponse, tmp_path: Path
) -> None:
    url = urljoin(stack.gateway, started.dash_path)
    for frame in FRAMES[::2]:
        options = [f"--start={seconds(frame)}", "--hr-seek=yes"]
        shown, _ = await asyncio.to_thread(mpv_shows, url, tmp_path / str(frame), *options)
        assert shown == [frame, frame + 1, frame + 2]
