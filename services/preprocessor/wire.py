"""The domain in the words of the contract, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import preprocessor_pb2 as api
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from services.media.messages import fraction_of, frame_runs_message
from services.media.time import NS_PER_SECOND, Timeline
from services.preprocessor.extract import COLUMNS, ROWS, Extracted
from services.preprocessor.model import (
    Chapter,
    Feature,
    Highlight,
    Ladder,
    Origin,
    PlannedChunk,
    SourceAudio,
    SourceReport,
    SourceText,
    SourceVideo,
    StoredFile,
    Treatment,
    TreatmentKind,
    TrialPoint,
    Window,
)
from services.runtime.errors import InvalidArgument
from services.runtime.wire import duration

VIDEO_CODECS = {
    "h264": media.VIDEO_CODEC_H264,
    "av1": media.VIDEO_CODEC_AV1,
    "hevc": media.VIDEO_CODEC_HEVC,
}
AUDIO_CODECS = {"aac": media.AUDIO_CODEC_AAC, "opus": media.AUDIO_CODEC_OPUS}
_ORIGINS = {Origin.GIVEN: media.Highlight.ORIGIN_GIVEN, Origin.MEASURED: media.Highlight.ORIGIN_MEASURED}


def rational_message(value: Fraction) -> media.Rational:
    """A fraction on the wire."""
    return media.Rational(numerator=value.numerator, denominator=value.denominator)


def timeline_message(timeline: Timeline) -> media.Timeline:
    """All frames, without segment starts."""
    return media.Timeline(timescale=timeline.timescale, frame_runs=frame_runs_message(timeline.runs))


def report_message(report: SourceReport) -> preprocessor.SourceReport:
    """What a source is."""
    video = report.video
    return preprocessor.SourceReport(
        container=report.container,
        duration=duration(report.duration_ns),
        video=preprocessor.SourceVideo(
            stream_index=video.stream_index,
            codec=video.codec,
            width=video.width,
            height=video.height,
            display_width=video.display_width,
            display_height=video.display_height,
            rotation_degrees=video.rotation_degrees,
            frame_rate=rational_message(video.frame_rate),
            variable_frame_rate=video.variable_frame_rate,
            pixel_format=video.pixel_format,
            interlaced=video.interlaced,
            frame_count=video.frame_count,
            time_base=rational_message(video.time_base),
            first_pts=video.first_pts,
            container_start_us=video.container_start_us,
            decode_delay_ticks=video.decode_delay_ticks,
            color_primaries=video.color_primaries,
            color_transfer=video.color_transfer,
            color_matrix=video.color_matrix,
            full_range=video.full_range,
            longest_key_distance_ticks=video.longest_key_distance_ticks,
            open_gop=video.open_gop,
            exact_seeks=video.exact_seeks,
        ),
        audios=[
            preprocessor.SourceAudio(
                stream_index=audio.stream_index,
                codec=audio.codec,
                sample_rate_hz=audio.sample_rate_hz,
                channel_count=audio.channel_count,
                language=audio.language,
                default_track=audio.default,
            )
            for audio in report.audios
        ],
        treatments=[one.reason for one in report.treatments],
        steps=[treatment_message(one) for one in report.treatments],
        texts=[
            preprocessor.SourceText(
                stream_index=text.stream_index,
                codec=text.codec,
                language=text.language,
                label=text.label,
                default_track=text.default,
                forced=text.forced,
            )
            for text in report.texts
        ],
        chapters=map(_chapter_message, report.chapters),
    )


def report_of(message: preprocessor.SourceReport) -> SourceReport:
    """What a source is."""
    video = message.video
    return SourceReport(
        container=message.container,
        duration_ns=message.duration.ToNanoseconds(),
        video=SourceVideo(
            stream_index=video.stream_index,
            codec=video.codec,
            width=video.width,
            height=video.height,
            display_width=video.display_width,
            display_height=video.display_height,
            rotation_degrees=video.rotation_degrees,
            frame_rate=fraction_of(video.frame_rate, "report.video.frame_rate"),
            variable_frame_rate=video.variable_frame_rate,
            pixel_format=video.pixel_format,
            interlaced=video.interlaced,
            frame_count=video.frame_count,
            time_base=fraction_of(video.time_base, "report.video.time_base"),
            first_pts=video.first_pts,
            container_start_us=video.container_start_us,
            decode_delay_ticks=video.decode_delay_ticks,
            color_primaries=video.color_primaries,
            color_transfer=video.color_transfer,
            color_matrix=video.color_matrix,
            full_range=video.full_range,
            longest_key_distance_ticks=video.longest_key_distance_ticks,
            open_gop=video.open_gop,
            exact_seeks=video.exact_seeks,
        ),
        audios=tuple(
            SourceAudio(
                stream_index=audio.stream_index,
                codec=audio.codec,
                sample_rate_hz=audio.sample_rate_hz,
                channel_count=audio.channel_count,
                language=audio.language,
                default=audio.default_track,
            )
            for audio in message.audios
        ),
        treatments=tuple(_treatment_of(one) for one in message.steps),
        texts=tuple(
            SourceText(
                stream_index=text.stream_index,
                codec=text.codec,
                language=text.language,
                label=text.label,
                default=text.default_track,
                forced=text.forced,
            )
            for text in message.texts
        ),
        chapters=tuple(
            Chapter(
                start_ns=chapter.start_offset.ToNanoseconds(),
                end_ns=chapter.end_offset.ToNanoseconds(),
                name=chapter.name,
            )
            for chapter in message.chapters
        ),
    )


def _chapter_message(chapter: Chapter) -> media.Chapter:
    return media.Chapter(
        start_offset=duration(chapter.start_ns), end_offset=duration(chapter.end_ns), name=chapter.name
    )


def extras_message(
    report: SourceReport, found: Extracted, sheets: Sequence[StoredFile], texts: Sequence[StoredFile]
) -> media.Extras:
    """What belongs to the title; `sheets` and `texts` say where its files were stored."""
    board = found.board
    return media.Extras(
        chapters=map(_chapter_message, report.chapters),
        storyboard=media.Storyboard(
            sheets=[
                media.StoryboardSheet(
                    object_key=sheet.object_key, size_bytes=sheet.size_bytes, sha256=sheet.sha256
                )
                for sheet in sheets
            ],
            tile_width=board.tile_width,
            tile_height=board.tile_height,
            columns=COLUMNS,
            rows=ROWS,
            interval=duration(board.interval_s * NS_PER_SECOND),
            tile_count=board.tile_count,
        ),
        text_tracks=[
            media.TextTrack(
                track_id=text.track_id,
                language=text.source.language,
                label=text.source.label,
                default_track=text.source.default,
                forced=text.source.forced,
                object_key=stored.object_key,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                cue_count=text.cue_count,
            )
            for text, stored in zip(found.texts, texts, strict=True)
        ],
    )


def treatment_message(treatment: Treatment) -> preprocessor.Treatment:
    """Something that is done to a source."""
    kind = preprocessor.Treatment.Kind.Value(f"KIND_{treatment.kind.name}")
    return preprocessor.Treatment(kind=kind, reason=treatment.reason, stream_index=treatment.stream_index)


def _treatment_of(message: preprocessor.Treatment) -> Treatment:
    kind = TreatmentKind[preprocessor.Treatment.Kind.Name(message.kind).removeprefix("KIND_")]
    return Treatment(kind=kind, reason=message.reason, stream_index=message.stream_index)


def window_message(window: Window) -> api.Window:
    """A stretch to analyse."""
    return api.Window(start_frame=window.start_frame, frame_count=window.frame_count)


def chunk_message(chunk: PlannedChunk) -> preprocessor.Chunk:
    """A planned segment."""
    return preprocessor.Chunk(
        number=chunk.number,
        start_frame=chunk.start_frame,
        frame_count=chunk.frame_count,
        start_ticks=chunk.start_ticks,
        duration_ticks=chunk.duration_ticks,
        starts_on_shot_change=chunk.starts_on_shot_change,
    )


def feature_message(feature: Feature) -> preprocessor.Feature:
    """What was measured of one stretch."""
    return preprocessor.Feature(
        start_ticks=feature.start_ticks,
        duration_ticks=feature.duration_ticks,
        motion=feature.motion,
        shot_change_count=feature.shot_change_count,
        loudness_lufs=feature.loudness_lufs,
    )


def features_of(messages: Iterable[preprocessor.Feature]) -> list[Feature]:
    """What was measured."""
    return [
        Feature(
            start_ticks=message.start_ticks,
            duration_ticks=message.duration_ticks,
            motion=message.motion,
            shot_change_count=message.shot_change_count,
            loudness_lufs=message.loudness_lufs,
        )
        for message in messages
    ]


def given_highlight(message: media.Highlight) -> Highlight:
    """A passage that the uploader named; raises `InvalidArgument` when it has no length."""
    start, end = message.start_offset.ToNanoseconds(), message.end_offset.ToNanoseconds()
    if not 0 <= start < end:
        raise InvalidArgument("highlights", "must begin at or after zero and end after they begin")
    return Highlight(
        start_ns=start, end_ns=end, origin=Origin.GIVEN, score=0.0, reason="Given by the uploader."
    )


def highlight_message(highlight: Highlight) -> media.Highlight:
    """A passage worth showing first."""
    return media.Highlight(
        start_offset=duration(highlight.start_ns),
        end_offset=duration(highlight.end_ns),
        origin=_ORIGINS[highlight.origin],
        score=highlight.score,
        reason=highlight.reason,
    )


def trial_point_of(message: media.TrialPoint) -> TrialPoint:
    """What one size and quality came to."""
    return TrialPoint(
        rendition_id=message.rendition_id,
        crf=message.crf,
        bits_per_second=message.bits_per_second,
        vmaf=message.vmaf,
    )


def ladder_message(ladder: Ladder) -> media.Ladder:
    """The renditions to make."""
    return media.Ladder(
        videos=[
            media.VideoLadder(
                codec=VIDEO_CODECS[video.codec],
                rungs=[
                    media.VideoRung(
                        rendition_id=rung.rendition_id,
                        width=rung.width,
                        height=rung.height,
                        crf=rung.crf,
                        max_bits_per_second=rung.max_bits_per_second,
                    )
                    for rung in video.rungs
                ],
            )
            for video in ladder.videos
        ],
        audios=[
            media.AudioRung(
                rendition_id=rung.rendition_id,
                stream_index=rung.stream_index,
                codec=AUDIO_CODECS[rung.codec],
                bits_per_second=rung.bits_per_second,
                sample_rate_hz=rung.sample_rate_hz,
                channel_count=rung.channel_count,
                language=rung.language,
            )
            for rung in ladder.audios
        ],
        reason=ladder.reason,
    )
