"""A source taken through probe, analysis and encode by the services' own parts, without a scheduler."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    Rendition,
    SoundSpan,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.media import cmaf
from services.media.containers import run_up_seconds
from services.media.pictures import PictureFormat
from services.media.sandbox import ffmpeg
from services.preprocessor.analyze import analyze
from services.preprocessor.model import PlannedChunk, Probe
from services.preprocessor.plan import plan_chunks, plan_windows
from services.preprocessor.probe import probe


@dataclass(frozen=True, kw_only=True)
class Finished:
    """All that was made of a source; `sounds` in the order of its tracks."""

    probe: Probe
    chunks: list[PlannedChunk]
    parts: list[Rendition]
    sounds: list[Rendition]

    def stream(self, first: int = 0, sound: int = 0) -> bytes:
        """Pictures, and sound where there is one, joined from a chunk on."""
        heard = self.sounds[sound : sound + 1]
        stream = cmaf.combined_init([self.parts[0].init, *(one.init for one in heard)])
        for number in range(first, len(self.parts)):
            stream += self.parts[number].segments[0].data
            stream += b"".join(one.segments[number].data for one in heard)
        return stream


def transform(film: Path, out: Path, before: Sequence[str], after: Sequence[str]) -> Path:
    """Another file made of `film`, with FFmpeg's options before and after the input."""
    subprocess.run(
        [ffmpeg(), "-loglevel", "error", "-y", *before, "-i", str(film), *after, str(out)], check=True
    )
    return out


def clock_of(found: Probe) -> SourceClock:
    """The source's clock as the wire brings it to the encoder."""
    video = found.report.video
    return SourceClock(
        stream_index=video.stream_index,
        time_base=video.time_base,
        first_pts=video.first_pts,
        container_start_us=video.container_start_us,
        frame_rate=video.frame_rate,
        exact_seeks=video.exact_seeks,
        run_up_seconds=run_up_seconds(found.report.container, video.longest_key_distance_s),
    )


def chunk_of(found: Probe, planned: PlannedChunk) -> Chunk:
    """A planned chunk as the scheduler hands it out."""
    line = found.timeline
    first = planned.start_frame
    picture = line.picture_frame(first)
    return Chunk(
        number=planned.number,
        start_ticks=planned.start_ticks,
        timescale=line.timescale,
        runs=line.part(first, first + planned.frame_count),
        previous_frame_ticks=line.pts(picture) - line.pts(picture - 1) if picture else 0,
        decode_delay_ticks=found.report.video.decode_delay_ticks,
        held_ticks=planned.start_ticks - line.pts(picture),
    )


def format_of(found: Probe) -> PictureFormat:
    """How the source's pictures are to be treated."""
    video = found.report.video
    return PictureFormat(
        interlaced=video.interlaced,
        color_primaries=video.color_primaries,
        color_transfer=video.color_transfer,
        color_matrix=video.color_matrix,
    )


async def whole_path(source: Path, width: int, height: int, codec: VideoCodec = VideoCodec.H264) -> Finished:
    """Everything that is made of a source, in one rung of pictures and AAC of every sound track."""
    engine = FfmpegEngine()
    found = await probe(source)
    chunks: list[PlannedChunk] = []
    for window in plan_windows(found.timeline):
        seen = await analyze(source, found.report, found.timeline, window)
        chunks += plan_chunks(found.timeline, window, seen.shot_change_frames, len(chunks))
    rung = VideoRung(rendition_id="rung", width=width, height=height, crf=20, max_bits_per_second=3_000_000)
    clock = clock_of(found)
    parts = []
    for planned in chunks:
        made, _ = await engine.video(
            source, chunk_of(found, planned), clock, codec, [rung], picture=format_of(found)
        )
        parts += made
    span = SoundSpan(
        starts=tuple(Fraction(planned.start_ticks, found.timeline.timescale) for planned in chunks),
        end=Fraction(found.timeline.duration_ticks, found.timeline.timescale),
    )
    sounds = []
    for audio in found.report.audios:
        heard = AudioRung(
            rendition_id=f"aac-{audio.stream_index}",
            stream_index=audio.stream_index,
            codec=AudioCodec.AAC,
            bits_per_second=128_000,
        )
        sounds.append((await engine.audio(source, heard, clock, span, ready=lambda part: None))[0])
    return Finished(probe=found, chunks=chunks, parts=parts, sounds=sounds)
