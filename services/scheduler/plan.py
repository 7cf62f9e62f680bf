"""What tasks a job consists of: messages of the contracts in, tasks out. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from services.media.messages import frame_runs_message, timeline_of
from services.media.time import Timeline
from services.scheduler.model import Chunk, Job, NewTask, Task, TaskKind, Tier, chunk_tier, priority

PROBE_ID = "probe"
EXTRACT_ID = "extract"
#: Where among the codecs of its tier it stands: last.
EXTRACT_PLACE = 255
VIDEO_PREFIX = "video-"
AUDIO_PREFIX = "audio-"

VIDEO_NAMES: dict[int, str] = {
    media.VIDEO_CODEC_H264: "h264",
    media.VIDEO_CODEC_AV1: "av1",
    media.VIDEO_CODEC_HEVC: "hevc",
}
AUDIO_NAMES: dict[int, str] = {media.AUDIO_CODEC_AAC: "aac", media.AUDIO_CODEC_OPUS: "opus"}
_SPOKEN = {"h264": "H.264", "av1": "AV1", "hevc": "HEVC", "aac": "AAC", "opus": "Opus"}

Result = (
    preprocessor.ProbeResult
    | preprocessor.AnalyzeResult
    | encoder.EncodeVideoResult
    | encoder.EncodeAudioResult
    | preprocessor.ExtractResult
    | encoder.TrialResult
)


def need_of(kind: TaskKind, codec: int = 0) -> str:
    """What a worker must be able to do for a task."""
    return f"{kind.value}/{codec}"


def needs_of(capabilities: encoder.Capabilities) -> frozenset[str]:
    """What a worker with these capabilities can do."""
    kinds = {
        TaskKind(encoder.TaskKind.Name(k).removeprefix("TASK_KIND_")) for k in capabilities.task_kinds if k
    }
    encodes = {TaskKind.ENCODE_VIDEO, TaskKind.ENCODE_AUDIO}
    needs = {need_of(kind) for kind in kinds - encodes}
    if TaskKind.ENCODE_VIDEO in kinds:
        needs |= {need_of(TaskKind.ENCODE_VIDEO, codec) for codec in capabilities.video_codecs}
    if TaskKind.ENCODE_AUDIO in kinds:
        needs |= {need_of(TaskKind.ENCODE_AUDIO, codec) for codec in capabilities.audio_codecs}
    return frozenset(needs)


def need_in_words(need: str) -> str:
    """What a worker must be able to do, for people."""
    kind, _, codec = need.partition("/")
    if kind == TaskKind.ENCODE_VIDEO.value:
        return f"encode {_SPOKEN[VIDEO_NAMES[int(codec)]]}"
    if kind == TaskKind.ENCODE_AUDIO.value:
        return f"encode {_SPOKEN[AUDIO_NAMES[int(codec)]]}"
    words = {
        TaskKind.PROBE.value: "probe sources",
        TaskKind.ANALYZE.value: "analyse sources",
        TaskKind.TRIAL.value: "encode on trial",
        TaskKind.EXTRACT.value: "take subtitles and small pictures out of sources",
    }
    return words[kind]


def analyze_id(window: int) -> str:
    """Id of the task that analyses a window."""
    return f"analyze-{window:05d}"


def for_encoders(report: preprocessor.SourceReport) -> preprocessor.SourceReport:
    """What every task has to know of a source: words and chapters would be stored with each of thousands."""
    lean = preprocessor.SourceReport()
    lean.CopyFrom(report)
    for field in ("treatments", "steps", "texts", "chapters"):
        lean.ClearField(field)
    return lean


def probe_task(job: Job) -> NewTask:
    """Read the source."""
    spec = preprocessor.ProbeTask(source=preprocessor.Source.FromString(job.source))
    return NewTask(
        task_id=PROBE_ID,
        kind=TaskKind.PROBE,
        need=need_of(TaskKind.PROBE),
        priority=priority(Tier.PROBE),
        frames=1,
        spec=spec.SerializeToString(),
        summary="Reading the source",
    )


def analyze_task(
    job: Job,
    probe: preprocessor.ProbeResult,
    window: int,
    start_frame: int,
    frame_count: int,
    first_chunk: int,
) -> NewTask:
    """Analyse a window. The timeline, often large, is put in when it is handed out (`complete_spec`)."""
    spec = preprocessor.AnalyzeTask(
        source=preprocessor.Source.FromString(job.source),
        report=for_encoders(probe.report),
        start_frame=start_frame,
        frame_count=frame_count,
        first_chunk_number=first_chunk,
    )
    frames = timeline_of(probe.timeline)
    span = f"{_clock(frames, start_frame)} to {_clock(frames, start_frame + frame_count)}"
    return NewTask(
        task_id=analyze_id(window),
        kind=TaskKind.ANALYZE,
        need=need_of(TaskKind.ANALYZE),
        priority=priority(Tier.ANALYZE, position=window),
        frames=frame_count,
        spec=spec.SerializeToString(),
        summary=f"Analysing {span}",
    )


def ticks_before(frames: Timeline, picture: int) -> int:
    """How long the frame before a picture lasts; 0 when it is the first."""
    return frames.pts(picture) - frames.pts(picture - 1) if picture else 0


def extract_task(job: Job, probe: preprocessor.ProbeResult) -> NewTask:
    """Take out subtitles, chapters and small pictures, after the windows that wait now."""
    spec = preprocessor.ExtractTask(
        source=preprocessor.Source.FromString(job.source),
        report=probe.report,
        output_prefix=job.output_prefix,
    )
    return NewTask(
        task_id=EXTRACT_ID,
        kind=TaskKind.EXTRACT,
        need=need_of(TaskKind.EXTRACT),
        priority=priority(Tier.ANALYZE, codec=EXTRACT_PLACE),
        frames=0,
        spec=spec.SerializeToString(),
        summary="Taking out subtitles and small pictures",
    )


def complete_spec(task: Task, job: Job) -> bytes:
    """The spec as a worker gets it."""
    if task.kind is not TaskKind.ANALYZE:
        return task.spec
    spec = preprocessor.AnalyzeTask.FromString(task.spec)
    spec.timeline.CopyFrom(preprocessor.ProbeResult.FromString(job.probe).timeline)
    return spec.SerializeToString()


def video_id(codec: media.VideoCodec.ValueType, number: int) -> str:
    """Id of the task that encodes a chunk."""
    return f"{VIDEO_PREFIX}{VIDEO_NAMES[codec]}-{number:06d}"


def video_priorities(
    ladder: media.Ladder, chunks: Iterable[Chunk], timescale: int, highlights: Sequence[media.Highlight]
) -> dict[str, int]:
    """The priority of every encode of these chunks, by task id."""
    spans = [(h.start_offset.ToNanoseconds(), h.end_offset.ToNanoseconds()) for h in highlights]
    return {
        video_id(video.codec, chunk.number): priority(
            chunk_tier(chunk, timescale, spans), codec=video.codec, position=chunk.number
        )
        for chunk in chunks
        for video in ladder.videos
    }


def video_tasks(
    job: Job, probe: preprocessor.ProbeResult, ladder: media.Ladder, chunks: Iterable[Chunk],
    priorities: dict[str, int],
) -> list[NewTask]:  # fmt: skip
    """One task for each chunk and codec, with the codec's whole ladder."""
    frames = timeline_of(probe.timeline)
    return [
        _video_task(job, probe, frames, video, chunk, priorities[video_id(video.codec, chunk.number)])
        for chunk in chunks
        for video in ladder.videos
    ]


def _video_task(
    job: Job,
    probe: preprocessor.ProbeResult,
    frames: Timeline,
    video: media.VideoLadder,
    chunk: Chunk,
    order: int,
) -> NewTask:
    stop = chunk.start_frame + chunk.frame_count
    picture = frames.picture_frame(chunk.start_frame)
    spec = encoder.EncodeVideoTask(
        source=preprocessor.Source.FromString(job.source),
        report=for_encoders(probe.report),
        chunk=preprocessor.Chunk(
            number=chunk.number,
            start_frame=chunk.start_frame,
            frame_count=chunk.frame_count,
            start_ticks=chunk.start_ticks,
            duration_ticks=chunk.duration_ticks,
        ),
        timescale=frames.timescale,
        frame_runs=frame_runs_message(frames.part(chunk.start_frame, stop)),
        previous_frame_duration_ticks=ticks_before(frames, picture),
        held_ticks=chunk.start_ticks - frames.pts(picture),
        codec=video.codec,
        rungs=video.rungs,
        output_prefix=job.output_prefix,
    )
    spoken = _SPOKEN[VIDEO_NAMES[video.codec]]
    span = f"{_clock(frames, chunk.start_frame)} to {_clock(frames, stop)}"
    return NewTask(
        task_id=video_id(video.codec, chunk.number),
        kind=TaskKind.ENCODE_VIDEO,
        need=need_of(TaskKind.ENCODE_VIDEO, video.codec),
        priority=order,
        frames=chunk.frame_count,
        spec=spec.SerializeToString(),
        summary=f"Encoding {span} (chunk {chunk.number}) in {spoken}",
        chunk=chunk.number,
    )


def sound_due(windows: int) -> bool:
    """Whether sound is handed out once so many windows are analysed, the last not among them.

    Every task encodes from the track's start (a sound encoder started in the middle makes other bytes). As
    each covers twice as much as the one before, the opening has its sound at once, what is played finds it
    ready, and all tasks together cost no more than two encodes of the whole.
    """
    return windows.bit_count() == 1


def audio_tasks(
    job: Job,
    probe: preprocessor.ProbeResult,
    ladder: media.Ladder,
    chunks: Sequence[Chunk],
    *,
    first_segment: int,
    goes_on: bool,
) -> list[NewTask]:
    """One task for each rendition of sound; `chunks` is the grid as far as it is known."""
    tier = Tier.ANALYZE if first_segment else Tier.OPENING
    part = f"of chunks {first_segment} to {chunks[-1].number}"
    return [
        NewTask(
            task_id=f"{AUDIO_PREFIX}{rung.rendition_id}-{first_segment:06d}",
            kind=TaskKind.ENCODE_AUDIO,
            need=need_of(TaskKind.ENCODE_AUDIO, rung.codec),
            priority=priority(tier, codec=rung.codec, position=first_segment),
            frames=0,
            spec=encoder.EncodeAudioTask(
                source=preprocessor.Source.FromString(job.source),
                report=for_encoders(probe.report),
                rung=rung,
                timescale=probe.timeline.timescale,
                segment_start_ticks=[chunk.start_ticks for chunk in chunks],
                end_ticks=chunks[-1].end_ticks,
                output_prefix=job.output_prefix,
                first_segment=first_segment,
                goes_on=goes_on,
            ).SerializeToString(),
            summary=f"Encoding sound {part} ({rung.language}) in {_SPOKEN[AUDIO_NAMES[rung.codec]]}",
        )
        for rung in ladder.audios
    ]


def extras_keys(extras: media.Extras) -> list[str]:
    """The objects that a title's extras name."""
    sheets = [sheet.object_key for sheet in extras.storyboard.sheets]
    return [*sheets, *(track.object_key for track in extras.text_tracks)]


def sampled(task_id: str, share: float, seed: str) -> bool:
    """Whether a task is in a sample; about `share` of all are, the same ones for the same seed."""
    drawn = int.from_bytes(hashlib.sha256(f"{seed} {task_id}".encode()).digest()[:8], "big")
    return drawn < share * 2**64


def renditions_of(ladder: media.Ladder, report: preprocessor.SourceReport) -> list[media.Rendition]:
    """The renditions a ladder leads to, as the catalogue wants them announced."""
    videos = [
        media.Rendition(
            rendition_id=rung.rendition_id,
            video=media.VideoTrack(
                codec=video.codec, width=rung.width, height=rung.height, frame_rate=report.video.frame_rate
            ),
        )
        for video in ladder.videos
        for rung in video.rungs
    ]
    audios = [
        media.Rendition(
            rendition_id=rung.rendition_id,
            audio=media.AudioTrack(
                codec=rung.codec,
                sample_rate_hz=rung.sample_rate_hz,
                channel_count=rung.channel_count,
                language=rung.language,
            ),
        )
        for rung in ladder.audios
    ]
    return videos + audios


def chunks_of(result: preprocessor.AnalyzeResult) -> list[Chunk]:
    """The chunks of an analysed window."""
    return [
        Chunk(
            number=chunk.number,
            start_frame=chunk.start_frame,
            frame_count=chunk.frame_count,
            start_ticks=chunk.start_ticks,
            duration_ticks=chunk.duration_ticks,
        )
        for chunk in result.chunks
    ]


def result_problem(task: Task, result: Result) -> str | None:
    """What is wrong with a result that came for a task; None when it fits."""
    if task.kind is TaskKind.PROBE and isinstance(result, preprocessor.ProbeResult):
        runs = result.timeline.frame_runs
        return None if runs and result.timeline.timescale > 0 else "the timeline has no frames"
    if task.kind is TaskKind.ANALYZE and isinstance(result, preprocessor.AnalyzeResult):
        return _window_problem(preprocessor.AnalyzeTask.FromString(task.spec), result)
    if task.kind is TaskKind.ENCODE_VIDEO and isinstance(result, encoder.EncodeVideoResult):
        spec = encoder.EncodeVideoTask.FromString(task.spec)
        wanted = [(rung.rendition_id, [spec.chunk.number]) for rung in spec.rungs]
        made = [(r.rendition_id, [s.number for s in r.segments]) for r in result.renditions]
        return None if sorted(made) == sorted(wanted) else f"expected {sorted(wanted)}, got {sorted(made)}"
    if task.kind is TaskKind.ENCODE_AUDIO and isinstance(result, encoder.EncodeAudioResult):
        sound = encoder.EncodeAudioTask.FromString(task.spec)
        wanted_id, end = sound.rung.rendition_id, len(sound.segment_start_ticks)
        numbers = [segment.number for segment in result.rendition.segments]
        fits = result.rendition.rendition_id == wanted_id
        fits = fits and numbers == list(range(sound.first_segment, end))
        return None if fits else f"expected segments {sound.first_segment} to {end - 1} of {wanted_id}"
    if (task.kind is TaskKind.EXTRACT and isinstance(result, preprocessor.ExtractResult)) or (
        task.kind is TaskKind.TRIAL and isinstance(result, encoder.TrialResult)
    ):
        return None
    return f"{type(result).__name__} is no result of this task"


def _window_problem(spec: preprocessor.AnalyzeTask, result: preprocessor.AnalyzeResult) -> str | None:
    frame, number = spec.start_frame, spec.first_chunk_number
    for chunk in result.chunks:
        if (chunk.start_frame, chunk.number) != (frame, number) or chunk.frame_count < 1:
            return f"chunk {chunk.number} at frame {chunk.start_frame} does not follow on frame {frame}"
        frame, number = frame + chunk.frame_count, number + 1
    return None if frame == spec.start_frame + spec.frame_count else "the chunks do not tile the window"


def _clock(frames: Timeline, frame: int) -> str:
    seconds = frames.pts(frame) / frames.timescale
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
