"""Trial encodes of a title, an excerpt a task so that workers share them, and what all came to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from services.media.messages import frame_runs_message, timeline_of
from services.scheduler.model import Job, NewTask, TaskKind, Tier, priority
from services.scheduler.plan import for_encoders, need_of, ticks_before

#: Titles shorter than this are not tried: choosing would take longer than it saves.
TRIAL_FROM_SECONDS = 120
#: Where excerpts are taken, as shares of the title, and how many frames each has.
TRIAL_PLACES, TRIAL_FRAMES = (0.1, 0.35, 0.6, 0.85), 18
#: Qualities tried: VMAF falls ever faster from best to worst, so that a line between these two would mislead.
TRIAL_CRFS = (18.0, 25.0, 32.0)


def worth_a_trial(probe: preprocessor.ProbeResult) -> bool:
    """Whether choosing the rungs by trial encodes pays."""
    return probe.report.duration.ToTimedelta().total_seconds() >= TRIAL_FROM_SECONDS


def trial_tasks(job: Job, probe: preprocessor.ProbeResult, fixed: media.Ladder) -> list[NewTask]:
    """Encode excerpts in the sizes of the fixed ladder's H.264."""
    return [
        NewTask(
            task_id=f"trial-{number}",
            kind=TaskKind.TRIAL,
            need=need_of(TaskKind.TRIAL),
            priority=priority(Tier.PROBE, position=1),
            frames=TRIAL_FRAMES,
            spec=encoder.TrialTask(
                source=preprocessor.Source.FromString(job.source),
                report=for_encoders(probe.report),
                timescale=probe.timeline.timescale,
                excerpts=[_excerpt(probe, place)],
                sizes=next(video.rungs for video in fixed.videos),
                crfs=TRIAL_CRFS,
            ).SerializeToString(),
            summary=f"Trying sizes and qualities at {place:.0%} of the title",
        )
        for number, place in enumerate(TRIAL_PLACES)
    ]


def _excerpt(probe: preprocessor.ProbeResult, place: float) -> encoder.Excerpt:
    frames = timeline_of(probe.timeline)
    start = frames.frame_at_ticks(int(frames.duration_ticks * place))
    stop = min(start + TRIAL_FRAMES, frames.frame_count)
    picture = frames.picture_frame(start)
    return encoder.Excerpt(
        start_ticks=frames.pts(start),
        frame_runs=frame_runs_message(frames.part(start, stop)),
        previous_frame_duration_ticks=ticks_before(frames, picture),
        held_ticks=frames.pts(start) - frames.pts(picture),
    )


def joined(results: Sequence[bytes]) -> encoder.TrialResult:
    """The means over all excerpts that could be measured, or why none could; one given up has no result."""
    tried = [encoder.TrialResult.FromString(result) for result in results if result]
    found = dict[tuple[str, float], list[media.TrialPoint]]()
    for trial in tried:
        for point in trial.points:
            found.setdefault((point.rendition_id, point.crf), []).append(point)
    points = [
        media.TrialPoint(
            rendition_id=rendition_id,
            crf=crf,
            bits_per_second=round(fmean(point.bits_per_second for point in same)),
            vmaf=fmean(point.vmaf for point in same),
        )
        for (rendition_id, crf), same in found.items()
    ]
    problem = next((trial.problem for trial in tried if trial.problem), "the trial encodes failed")
    return encoder.TrialResult(points=points, problem="" if points else problem)
