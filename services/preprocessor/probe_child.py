"""Reads a source with PyAV, shut in: what it is, and when each of its frames is shown.

A program of its own, run by `probe` inside the sandbox with the source as descriptor 3. It prints one JSON
object: the facts, or `{"refused": REASON, "problem": …}`. It decides nothing but what only a demuxer can see.
That there is no memory says nothing of the source: it ends the program, and the sandbox tells.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

#: More frames than twelve hours at 120 a second.
MAX_FRAMES = 6_000_000
MAX_CHAPTERS = 1000
#: Sample entries of Dolby Vision that other decoders can't show rightly ("Dolby Vision Streams Within the ISO
#: Base Media File Format", section 3); in other containers the metadata of the frames tells.
DOLBY_TAGS = frozenset({"dvh1", "dvhe", "dva1", "dvav", "dav1"})
DOLBY_DATA = (Type.DOVI_RPU_BUFFER, Type.DOVI_METADATA)
UNSPECIFIED = 2
#: Frames decoded at the start to learn what only the decoder knows.
HEAD_FRAMES = 12


class Refused(Exception):
    """The source cannot be processed; the arguments are the reason and the problem."""


@dataclass(frozen=True)
class Shown:
    """A frame as its packet announces it."""

    pts: int
    duration: int
    key: bool
    #: Whether it stands behind a key frame in the file and is shown before it.
    leading: bool
    #: By how much it is decoded before it is shown; None where the file doesn't say.
    lead: int | None


def _open(source_fd: int, formats: str) -> InputContainer:
    file = os.fdopen(source_fd, "rb")
    # The whitelists hold for whatever the demuxer would open on its own.
    options = {"format_whitelist": formats, "protocol_whitelist": "fd"}
    try:
        return av.open(file, mode="r", options=options)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError):
        raise Refused("SOURCE_NOT_MEDIA", "it is none of the containers that are read") from None


def _video(container: InputContainer) -> VideoStream:
    """The picture track: the first that is not a cover image."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise Refused("SOURCE_HAS_NO_VIDEO", "")


@dataclass
class Heard:
    """When the sound of a track begins and ends, in its own ticks: fractions take seconds for a film."""

    start: int | None = None
    end: int | None = None

    def add(self, packet: Packet[Any]) -> None:
        """Takes one more packet of the track."""
        start = packet.pts
        if start is not None:
            end = start + (packet.duration or 0)
            self.start = start if self.start is None or start < self.start else self.start
            self.end = end if self.end is None or end > self.end else self.end


def _packets(container: InputContainer, stream: VideoStream, sounds: dict[int, Heard]) -> Iterator[Shown]:
    """Every frame that is to be shown, in the file's order; `sounds`, by stream, learn their times.

    What comes before the first key frame, and what leads it, can't be decoded and isn't shown.
    """
    first_key: int | None = None
    counted = last_key = 0
    for packet in container.demux([stream, *(container.streams[index] for index in sounds)]):
        if packet.size == 0:
            continue
        if packet.stream_index != stream.index:
            sounds[packet.stream_index].add(packet)
            continue
        if packet.pts is None:
            raise Refused("SOURCE_UNSUPPORTED", "its pictures carry no presentation times")
        if first_key is None and packet.is_keyframe:
            first_key = packet.pts
        # An edit list may begin in the middle of a group: what it discards is decoded but not shown.
        if first_key is None or packet.pts < first_key or packet.is_discard:
            continue
        last_key = packet.pts if packet.is_keyframe else last_key
        counted += 1
        if counted > MAX_FRAMES:
            raise Refused("SOURCE_UNSUPPORTED", f"it has more than {MAX_FRAMES} frames")
        lead = None if packet.dts is None else packet.pts - packet.dts
        yield Shown(packet.pts, packet.duration or 0, packet.is_keyframe, packet.pts < last_key, lead)


def _exact_seeks(container: InputContainer, stream: VideoStream, frames: list[Shown]) -> bool:
    """Whether seeks find the key frame they want without a run-up.

    This demuxer alone takes a seek's aim for a time of showing and turns it into one of decoding, with one
    difference for the whole track. So it does when all key frames are decoded equally long before they are
    shown and one, tried on either side, is found.
    """
    keys = [frame for frame in frames if frame.key]
    if len(keys) < 2 or not container.format.name.startswith("mov") or len({key.lead for key in keys}) > 1:
        return False
    before, key = keys[len(keys) // 2 - 1 :][:2]
    for aim, wanted in ((key.pts + key.duration / 2, key), (key.pts - before.duration / 2, before)):
        container.seek(int(aim * float(stream.time_base or 1) * 1_000_000), backward=True, any_frame=False)
        found = next((packet for packet in container.demux(stream) if packet.size), None)
        if found is None or found.pts != wanted.pts:
            return False
    return True


def _check_end(container: InputContainer, stream: VideoStream, frames: list[Shown], seconds: int) -> bool:
    """Decodes the last group of pictures: a file whose end is missing or broken shows it here.

    Seeks run up by so many seconds. Whether a picture is interlaced.
    """
    last_key = max(frame.pts for frame in frames if frame.key)
    run_up = int(seconds / (stream.time_base or 1))
    if last_key - run_up > frames[0].pts:
        container.seek(last_key - run_up, stream=stream, backward=True, any_frame=False)
    else:
        # To the very start: without an index a seek to the first picture may land behind it.
        container.seek(min(container.start_time or 0, 0), backward=True)
    last, interlaced = None, False
    try:
        for frame in container.decode(stream):
            interlaced = interlaced or frame.interlaced_frame
            if frame.pts is not None:
                last = frame.pts if last is None else max(last, frame.pts)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise Refused("SOURCE_TRUNCATED", f"its end does not decode ({error})") from None
    expected = frames[-1].pts
    if last is None or last < expected:
        raise Refused(
            "SOURCE_TRUNCATED", f"its last frames do not decode: the last is at {last}, not {expected}"
        )
    return interlaced


def _head(container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    """What only decoded frames say, and when the first one is shown."""
    container.seek(0, backward=True)
    rotation, interlaced, first, pixel_format = 0, False, None, None
    dolby = stream.codec_context.codec_tag in DOLBY_TAGS
    colors: dict[str, int] = {}
    try:
        for number, frame in enumerate(container.decode(stream)):
            first = frame.pts if first is None else first
            pixel_format = pixel_format or frame.format.name
            rotation = frame.rotation if number == 0 else rotation
            colors = colors or _colors(frame)
            interlaced = interlaced or frame.interlaced_frame
            dolby = dolby or any(one in frame.side_data for one in DOLBY_DATA)
            if number >= HEAD_FRAMES:
                break
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise Refused("SOURCE_UNSUPPORTED", f"its pictures do not decode ({error})") from None
    if first is None:
        raise Refused("SOURCE_UNSUPPORTED", "its pictures do not decode")
    if dolby and colors["transfer"] == UNSPECIFIED:
        raise Refused(
            "SOURCE_UNSUPPORTED",
            "its pictures are Dolby Vision of profile 5, whose colours only its own decoders know:"
            " export it as HDR10, HLG or in the standard range",
        )
    return {
        # FFmpeg turns anticlockwise.
        "rotation": -round(rotation) % 360,
        "interlaced": interlaced,
        "first_decoded_pts": first,
        "pixel_format": pixel_format,
        **colors,
    }


def _colors(frame: VideoFrame) -> dict[str, int]:
    """What a frame says of its colours, by ITU-T H.273; FFmpeg's range 2 is the full one."""
    return {
        "primaries": int(frame.color_primaries),
        "transfer": int(frame.color_trc),
        "matrix": int(frame.colorspace),
        "full_range": int(int(frame.color_range) == 2),
    }


def _fraction(value: Fraction | None) -> list[int]:
    return [0, 1] if value is None else [value.numerator, value.denominator]


def _audio(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    return {
        "stream_index": stream.index,
        "codec": context.name,
        "sample_rate": context.sample_rate or 0,
        "channels": context.channels or 0,
        "language": stream.language or "und",
        "default": bool(stream.disposition & Disposition.default),
    }


def _key_distance(frames: list[Shown]) -> int:
    keys = [frame.pts for frame in frames if frame.key]
    ends = [*keys[1:], frames[-1].pts + frames[-1].duration]
    return max(end - key for key, end in zip(keys, ends, strict=True))


def _text(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    return {
        "stream_index": stream.index,
        "codec": context.name if context is not None else "",
        "language": stream.language or "und",
        "label": stream.metadata.get("title", "")[:200],
        "default": bool(stream.disposition & Disposition.default),
        "forced": bool(stream.disposition & Disposition.forced),
    }


def _chapters(container: InputContainer) -> list[dict[str, Any]]:
    """Start and end in seconds on the container's clock, and the name."""
    return [
        {
            "start": _fraction(chapter["start"] * (chapter["time_base"] or Fraction(0))),
            "end": _fraction(chapter["end"] * (chapter["time_base"] or Fraction(0))),
            "name": chapter["metadata"].get("title", "")[:500],
        }
        for chapter in container.chapters()[:MAX_CHAPTERS]
    ]


def _runs(frames: list[Shown]) -> list[tuple[int, int]]:
    durations = [following.pts - one.pts for one, following in pairwise(frames)]
    if any(duration <= 0 for duration in durations):
        raise Refused("SOURCE_UNSUPPORTED", "two of its frames are shown at the same time")
    last = frames[-1].duration or (durations[-1] if durations else 0)
    if last <= 0:
        raise Refused("SOURCE_UNSUPPORTED", "its only frame has no duration")
    return [(sum(1 for _ in same), duration) for duration, same in groupby([*durations, last])]


def _all_frames(
    container: InputContainer, stream: VideoStream, coarse: list[str], audios: list[dict[str, Any]]
) -> dict[str, Any]:
    """Every frame of the pictures, and when each sound track begins and ends."""
    sounds = {audio["stream_index"]: Heard() for audio in audios}
    frames = sorted(_packets(container, stream, sounds), key=lambda frame: frame.pts)
    if not frames:
        raise Refused("SOURCE_TRUNCATED", "it announces pictures but holds none")
    for audio in audios:
        heard, tick = sounds[audio["stream_index"]], container.streams[audio["stream_index"]].time_base
        audio["start"], audio["end"] = (
            _fraction(at * tick) if at is not None and tick else None for at in (heard.start, heard.end)
        )
    key_distance = _key_distance(frames)
    seconds = 1
    if container.format.name in coarse:
        seconds = max(12, math.ceil(key_distance * (stream.time_base or 1)) + 2)
    return {
        "frame_count": len(frames),
        "first_pts": frames[0].pts,
        "runs": _runs(frames),
        "key_distance": key_distance,
        "open_gop": any(frame.leading for frame in frames),
        "interlaced_end": _check_end(container, stream, frames, seconds),
        "exact_seeks": _exact_seeks(container, stream, frames),
    }


def read(source_fd: int, formats: str, coarse: list[str] | None) -> dict[str, Any]:
    """The facts about the source; also all its frames when told which containers have no index."""
    with _open(source_fd, formats) as container:
        stream = _video(container)
        context = stream.codec_context
        if context is None:
            raise Refused("SOURCE_UNSUPPORTED", "its pictures are coded in a way that is not known")
        facts: dict[str, Any] = {
            "container": container.format.name,
            "container_start_us": container.start_time or 0,
            "stream_index": stream.index,
            "codec": context.name,
            "width": context.width,
            "height": context.height,
            "sample_aspect": _fraction(stream.sample_aspect_ratio),
            "time_base": _fraction(stream.time_base),
            "average_rate": _fraction(stream.average_rate),
            "base_rate": _fraction(stream.base_rate),
            "announced_frames": stream.frames,
            "duration_us": container.duration or 0,
            "audios": [_audio(one) for one in container.streams.audio if one.codec_context is not None],
            "texts": [_text(one) for one in container.streams.subtitles],
            "chapters": _chapters(container),
        }
        if coarse is not None:
            facts |= _all_frames(container, stream, coarse, facts["audios"])
        return facts | _head(container, stream)


def main() -> None:
    try:
        answer = read(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
    except Refused as refusal:
        answer = {"refused": refusal.args[0], "problem": refusal.args[1]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
