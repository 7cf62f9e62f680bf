from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from kino.media.v1 import media_pb2
from services.encoder import hardware
from services.media import sandbox


def test_every_hardware_encoder_that_our_ffmpeg_names_is_tried() -> None:
    argv = [sandbox.ffmpeg(), "-hide_banner", "-encoders"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    names = {line.split()[1] for line in said.splitlines() if len(line.split()) > 1}
    kinds = ("nvenc", "qsv", "vaapi", "videotoolbox")
    wanted = {f"{codec}_{kind}" for codec in ("h264", "hevc", "av1") for kind in kinds} & names

    tried = asyncio.run(hardware.tried_all())

    assert wanted
    assert {one.encoder for one in tried} == wanted
    # Whatever this machine has: each works, or there is a reason.
    assert all(one.works != bool(one.problem) for one in tried)


async def test_pictures_out_of_an_encoder_are_what_makes_it_work() -> None:
    found = await hardware.tried("libx264", sandbox.ffmpeg())

    assert (found.works, found.problem) == (True, "")


async def test_the_reason_is_ffmpegs_first_words_without_addresses() -> None:
    found = await hardware.tried("h264_none", sandbox.ffmpeg())

    assert found.video_codec == media_pb2.VIDEO_CODEC_H264
    assert not found.works
    assert found.problem.startswith("Unknown encoder 'h264_none'")
    assert "0x" not in found.problem


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("exit 0", "it made nothing and gave no reason"),
        ("exit 1", "FFmpeg failed without a word"),
        ("kill -SEGV $$", "FFmpeg failed without a word"),
        ("echo '[h264_nvenc @ 0x5] Cannot load libcuda.so.1' >&2; exit 1", "Cannot load libcuda.so.1"),
        ("exec sleep 600", "it did not end within 0.5 s"),
    ],
)
async def test_an_encoder_that_ends_otherwise_does_not_work(
    does: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "PATIENCE_S", 0.5 if "sleep" in does else 20)
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)

    found = await hardware.tried("h264_nvenc", str(program))

    assert (found.works, found.problem) == (False, problem)
