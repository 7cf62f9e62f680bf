"""Hardware encoders: tried with some pictures, never assumed. They are reported, not used (decision 0032)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from services.media import sandbox

_CODECS = {
    "h264": media.VIDEO_CODEC_H264,
    "hevc": media.VIDEO_CODEC_HEVC,
    "av1": media.VIDEO_CODEC_AV1,
}
#: How pictures get to a device; the other kinds take them from memory.
_DEVICES = {"vaapi": (["-init_hw_device", "vaapi=hw", "-filter_hw_device", "hw"], ",hwupload")}
#: A line of `ffmpeg -encoders`.
_LISTED = re.compile(r"^ V\S* ((?:h264|hevc|av1)_(?:nvenc|qsv|vaapi|videotoolbox)) ", re.MULTILINE)
#: Where in FFmpeg a line comes from, with an address that is another each time.
_ORIGIN = re.compile(r"^(\[[^\]]*\] ?)+")
PATIENCE_S = 20.0
_PROBLEM_CHARACTERS = 300


async def tried_all() -> list[encoder.HardwareEncoder]:
    """Every hardware encoder that our FFmpeg knows, tried on this machine; they are tried together."""
    program = sandbox.ffmpeg()
    return await asyncio.gather(*(tried(name, program) for name in await known(program)))


async def known(program: str) -> list[str]:
    """The hardware encoders that an FFmpeg was built with."""
    said, _ = await _run([program, "-hide_banner", "-encoders"])
    return _LISTED.findall(said.decode(errors="replace"))


async def tried(name: str, program: str) -> encoder.HardwareEncoder:
    """Whether pictures come out of one, or FFmpeg's reason why not."""
    made, problem = await _run(_command(name, program))
    if not made and not problem:
        problem = "it made nothing and gave no reason"
    codec = _CODECS.get(name.partition("_")[0], media.VIDEO_CODEC_UNSPECIFIED)
    return encoder.HardwareEncoder(encoder=name, video_codec=codec, works=not problem, problem=problem)


def _command(name: str, program: str) -> list[str]:
    device, upload = _DEVICES.get(name.rpartition("_")[2], ([], ""))
    return [
        *(program, "-hide_banner", "-nostdin", "-loglevel", "error"),
        *device,
        # Every device takes this size; some refuse smaller ones.
        *("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-frames:v", "5"),
        *("-vf", f"format=nv12{upload}", "-c:v", name, "-f", "matroska", "-"),
    ]


async def _run(argv: Sequence[str]) -> tuple[bytes, str]:
    """What it made, and its problem; outside the sandbox, which has no devices: nothing foreign is read."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            made, said = await process.communicate()
    except TimeoutError:
        return b"", f"it did not end within {PATIENCE_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return made, _problem(said.decode(errors="replace")) if process.returncode else ""


def _problem(said: str) -> str:
    """The first words of a failure; those that follow tell only what it led to."""
    lines = [_ORIGIN.sub("", line).strip() for line in said.splitlines()]
    words = " ".join([line for line in lines if line][:2])
    return words[:_PROBLEM_CHARACTERS] or "FFmpeg failed without a word"
