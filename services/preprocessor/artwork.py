"""Pictures that stand for a title: decoded shut in, encoded anew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.media import sandbox
from services.media.errors import EncoderFailed, EncoderStalled, MediaError, SandboxLimit
from services.media.scratch import Scratch
from services.runtime.errors import Code

#: File name, greatest width and greatest height of what is made.
SIZES = (("large.jpg", 1280, 1920), ("small.jpg", 480, 720))
ARTWORK_LIMITS = sandbox.Limits(
    memory_bytes=2 * sandbox.GIB, cpu_s=30, file_bytes=8 << 20, wall_s=60, stall_s=60, output_bytes=1 << 20
)
#: More pixels than that make a decoder give up before it takes memory for them.
MOST_PIXELS = 64 << 20
#: How files begin that are read, and their demuxer in FFmpeg.
_KINDS = ((b"\xff\xd8\xff", "jpeg_pipe"), (b"\x89PNG\r\n\x1a\n", "png_pipe"), (b"RIFF", "webp_pipe"))


class PictureUnreadable(MediaError):
    """The picture can't be read: {problem}. Send a JPEG, PNG or WebP of at most 64 megapixels."""

    code = Code.INVALID_ARGUMENT
    reason = "PICTURE_UNREADABLE"


@dataclass(frozen=True, kw_only=True)
class Artwork:
    """JPEG files."""

    large: bytes
    small: bytes


async def of_picture(data: bytes, scratch: Scratch) -> Artwork:
    """Of an uploaded picture. Raises `PictureUnreadable`, `ScratchFull`."""
    demuxer = next((name for sign, name in _KINDS if data.startswith(sign)), None)
    if demuxer is None or (demuxer == "webp_pipe" and data[8:12] != b"WEBP"):
        raise PictureUnreadable(problem="it is none of the kinds that are read")
    # Rotation that a camera wrote into the file is applied, everything else that is not pixels is left out.
    return await _made([data], ["-f", demuxer], [], scratch)


async def of_frame(init: bytes, segment: bytes, frame_ticks: int, scratch: Scratch) -> Artwork:
    """Of the frame with this presentation time in a segment. Raises `PictureUnreadable`, `ScratchFull`."""
    return await _made([init, segment], ["-copyts"], [f"trim=start_pts={frame_ticks}"], scratch)


async def _made(
    parts: Sequence[bytes], flags: Sequence[str], filters: Sequence[str], scratch: Scratch
) -> Artwork:
    most_bytes = sum(map(len, parts)) + len(SIZES) * ARTWORK_LIMITS.file_bytes
    async with scratch.folder("artwork", most_bytes) as whole:
        folder, source = whole / "out", whole / "source"
        folder.mkdir()
        await asyncio.to_thread(source.write_bytes, b"".join(parts))
        argv = command(flags, filters)
        try:
            await sandbox.output_of(
                sandbox.Command(argv=argv, source=source, scratch=folder, limits=ARTWORK_LIMITS)
            )
            large, small = [(folder / name).read_bytes() for name, _, _ in SIZES]
        except (EncoderFailed, EncoderStalled, SandboxLimit, FileNotFoundError) as error:
            stderr = error.details.get("stderr", "") if isinstance(error, MediaError) else ""
            raise PictureUnreadable(problem="it is damaged or too large", stderr=stderr) from error
        return Artwork(large=large, small=small)


def command(flags: Sequence[str], filters: Sequence[str]) -> list[str]:
    """Writes each of `SIZES`; never larger than what came in."""
    argv = [sandbox.ffmpeg(), "-hide_banner", "-nostdin", "-y", "-loglevel", "error", "-threads", "1"]
    argv += ["-max_pixels", str(MOST_PIXELS), *flags, *sandbox.input_flags(FORMATS)]
    for name, width, height in SIZES:
        scale = (
            f"scale=w='min({width},iw)':h='min({height},ih)':force_original_aspect_ratio=decrease"
            ":force_divisible_by=2:out_range=pc"
        )
        # What is transparent lies on black: JPEG has no other way.
        argv += ["-map", "0:v:0", "-vf", ",".join([*filters, scale, "format=yuvj420p"])]
        argv += ["-frames:v", "1", "-map_metadata", "-1", "-c:v", "mjpeg", "-q:v", "3"]
        argv += ["-flags:v", "+bitexact", "-f", "image2", "-update", "1", name]
    return argv


#: Demuxers that may be used, whatever the bytes look like.
FORMATS = ("jpeg_pipe", "png_pipe", "webp_pipe", "mov", "mp4", "m4a", "3gp", "3g2", "mj2")
