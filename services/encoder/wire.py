"""The domain in the words of the contract, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    Quality,
    Rendition,
    Segment,
    SoundSpan,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.encoder.trial import Trial
from services.encoder.usecases import StoredRendition, StoredSegment
from services.media.containers import run_up_seconds
from services.media.messages import fraction_of, frame_runs_of
from services.media.pictures import PictureFormat
from services.runtime.errors import InvalidArgument

VIDEO_CODECS = {
    media.VIDEO_CODEC_H264: VideoCodec.H264,
    media.VIDEO_CODEC_AV1: VideoCodec.AV1,
    media.VIDEO_CODEC_HEVC: VideoCodec.HEVC,
}
AUDIO_CODECS = {media.AUDIO_CODEC_AAC: AudioCodec.AAC, media.AUDIO_CODEC_OPUS: AudioCodec.OPUS}


def clock_of(report: preprocessor.SourceReport) -> SourceClock:
    """The source's clock against the timeline."""
    video = report.video
    tick = fraction_of(video.time_base, "report.video.time_base")
    return SourceClock(
        stream_index=video.stream_index,
        time_base=tick,
        first_pts=video.first_pts,
        container_start_us=video.container_start_us,
        frame_rate=fraction_of(video.frame_rate, "report.video.frame_rate"),
        exact_seeks=video.exact_seeks,
        run_up_seconds=run_up_seconds(report.container, float(video.longest_key_distance_ticks * tick)),
    )


def picture_of(report: preprocessor.SourceReport) -> PictureFormat:
    """What decides how the source's pictures are treated."""
    video = report.video
    return PictureFormat(
        interlaced=video.interlaced,
        color_primaries=video.color_primaries,
        color_transfer=video.color_transfer,
        color_matrix=video.color_matrix,
    )


def chunk_of(task: encoder.EncodeVideoTask) -> Chunk:
    """The chunk of a task; raises `InvalidArgument` when its frames do not fit its length."""
    chunk = Chunk(
        number=task.chunk.number,
        start_ticks=task.chunk.start_ticks,
        timescale=task.timescale,
        runs=frame_runs_of(task.frame_runs),
        previous_frame_ticks=task.previous_frame_duration_ticks,
        decode_delay_ticks=task.report.video.decode_delay_ticks,
        held_ticks=task.held_ticks,
    )
    if (chunk.frame_count, chunk.duration_ticks) != (task.chunk.frame_count, task.chunk.duration_ticks):
        raise InvalidArgument("frame_runs", "do not add up to the chunk")
    return chunk


def excerpts_of(task: encoder.TrialTask) -> list[Chunk]:
    """The excerpts of a trial."""
    return [
        Chunk(
            number=number,
            start_ticks=excerpt.start_ticks,
            timescale=task.timescale,
            runs=frame_runs_of(excerpt.frame_runs),
            previous_frame_ticks=excerpt.previous_frame_duration_ticks,
            decode_delay_ticks=task.report.video.decode_delay_ticks,
            held_ticks=excerpt.held_ticks,
        )
        for number, excerpt in enumerate(task.excerpts)
    ]


def trial_message(trial: Trial) -> encoder.TrialResult:
    """What a trial came to."""
    return encoder.TrialResult(
        points=[
            media.TrialPoint(
                rendition_id=point.rendition_id,
                crf=point.crf,
                bits_per_second=point.bits_per_second,
                vmaf=point.vmaf,
            )
            for point in trial.points
        ],
        problem=trial.problem,
        command="\n".join(trial.commands),
    )


def video_codec_of(task: encoder.EncodeVideoTask) -> VideoCodec:
    """The codec of a task."""
    if task.codec not in VIDEO_CODECS:
        raise InvalidArgument("codec", "is not known")
    return VIDEO_CODECS[task.codec]


def video_rungs_of(rungs: Iterable[media.VideoRung]) -> list[VideoRung]:
    """The rungs of a task."""
    return [
        VideoRung(
            rendition_id=rung.rendition_id,
            width=rung.width,
            height=rung.height,
            crf=rung.crf,
            max_bits_per_second=rung.max_bits_per_second,
        )
        for rung in rungs
    ]


def audio_rung_of(rung: media.AudioRung) -> AudioRung:
    """The sound to make."""
    if rung.codec not in AUDIO_CODECS:
        raise InvalidArgument("rung.codec", "is not known")
    return AudioRung(
        rendition_id=rung.rendition_id,
        stream_index=rung.stream_index,
        codec=AUDIO_CODECS[rung.codec],
        bits_per_second=rung.bits_per_second,
        sample_rate_hz=rung.sample_rate_hz,
        channel_count=rung.channel_count,
        language=rung.language,
    )


def span_of(task: encoder.EncodeAudioTask) -> SoundSpan:
    """The segments of sound to make."""
    starts = [Fraction(ticks, task.timescale) for ticks in task.segment_start_ticks]
    end = Fraction(task.end_ticks, task.timescale)
    if starts[0] != 0 or any(a >= b for a, b in zip(starts, [*starts[1:], end], strict=True)):
        raise InvalidArgument("segment_start_ticks", "must begin with 0 and rise up to the end")
    if task.first_segment >= len(starts):
        raise InvalidArgument("first_segment", "lies beyond the grid")
    return SoundSpan(starts=tuple(starts), end=end, first_segment=task.first_segment, goes_on=task.goes_on)


def rendition_message(stored: StoredRendition) -> encoder.EncodedRendition:
    """What was made, as it is reported."""
    rendition = stored.rendition
    return encoder.EncodedRendition(
        rendition_id=rendition.rendition_id,
        init_object_key=stored.init_object_key,
        init_sha256=stored.init_sha256,
        codecs=rendition.codecs,
        timescale=rendition.timescale,
        segments=[_segment_message(one, rendition.media_time) for one in stored.segments],
    )


def _quality_message(quality: Quality) -> media.SegmentQuality:
    metric = media.SegmentQuality.Metric.Value(f"METRIC_{quality.metric.name}")
    return media.SegmentQuality(metric=metric, mean=quality.mean, least=quality.least)


def verified_messages(
    record: encoder.EncodeRecord, again: Sequence[Rendition]
) -> list[encoder.VerifiedSegment]:
    """The segments of a record beside those made again."""
    found = {
        (rendition.rendition_id, segment.number): segment.sha256
        for rendition in again
        for segment in rendition.segments
    }
    return [
        encoder.VerifiedSegment(
            rendition_id=rendition.rendition_id,
            number=segment.number,
            published_sha256=segment.sha256,
            repeated_sha256=found.get((rendition.rendition_id, segment.number), b""),
        )
        for rendition in record.renditions
        for segment in rendition.segments
    ]


def _segment_message(stored: StoredSegment, media_time: int) -> media.Segment:
    segment: Segment = stored.segment
    # Presentation times: of pictures the decode times, which the packager makes equal; of sound less the
    # priming.
    shift = segment.fragments[0].tfdt_ticks - segment.start_ticks
    assert shift in (0, media_time)
    return media.Segment(
        number=segment.number,
        start_ticks=segment.start_ticks,
        duration_ticks=segment.duration_ticks,
        object_key=stored.object_key,
        size_bytes=len(segment.data),
        sha256=segment.sha256,
        quality=_quality_message(segment.quality) if segment.quality else None,
        fragments=[
            media.Fragment(
                offset_bytes=fragment.offset,
                size_bytes=fragment.size_bytes,
                start_ticks=fragment.tfdt_ticks - shift,
                duration_ticks=fragment.duration_ticks,
            )
            for fragment in segment.fragments
        ],
    )
