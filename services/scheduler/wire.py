"""The domain in the words of the contract, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from google.rpc import error_details_pb2, status_pb2

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from services.runtime.errors import Code, InvalidArgument, RemoteError
from services.runtime.names import parse
from services.runtime.status import status_of
from services.runtime.wire import timestamp_or_none
from services.scheduler import plan
from services.scheduler.model import (
    LEASE,
    ORIGIN_FULL,
    Attempt,
    Failure,
    Job,
    JobState,
    Lease,
    Task,
    TaskKind,
    TaskState,
    Urgency,
)
from services.scheduler.sessions import Held
from services.scheduler.store import Counts, KnownWorker

JOB = "jobs/{job}"
TASK = "jobs/{job}/tasks/{task}"
WORKER = "workers/{worker}"

_STATES = {
    TaskState.WAITING: scheduler.TaskExplanation.STATE_WAITING,
    TaskState.RUNNING: scheduler.TaskExplanation.STATE_RUNNING,
    TaskState.PUBLISHING: scheduler.TaskExplanation.STATE_RUNNING,
    TaskState.SUCCEEDED: scheduler.TaskExplanation.STATE_SUCCEEDED,
    TaskState.FAILED: scheduler.TaskExplanation.STATE_FAILED,
    TaskState.CANCELED: scheduler.TaskExplanation.STATE_CANCELED,
}


FAILED_IN_A_ROW = "It failed several tasks in a row."
_PRIORITIES = {
    Urgency.LOW: scheduler.Job.PRIORITY_LOW,
    Urgency.NORMAL: scheduler.Job.PRIORITY_NORMAL,
    Urgency.URGENT: scheduler.Job.PRIORITY_URGENT,
}


def status_of_failure(failure: Failure) -> status_pb2.Status:
    """A failure as `google.rpc.Status` with its `ErrorInfo`."""
    return status_of(
        RemoteError(
            code=failure.code, reason=failure.reason, message=failure.message, metadata=failure.metadata
        )
    )


def failure_of_status(status: status_pb2.Status) -> Failure:
    """What a worker says went wrong."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    code = Code(status.code) if status.code in Code._value2member_map_ else Code.UNKNOWN
    return Failure(
        code=code,
        reason=info.reason or code.name,
        message=status.message or "The worker gave no reason.",
        metadata=dict(info.metadata),
    )


def job_id_of(name: str) -> str:
    """The id in `jobs/{job}`."""
    return parse(JOB, name)["job"]


def worker_id_of(name: str) -> str:
    """The id in `workers/{worker}`."""
    return parse(WORKER, name)["worker"]


def lease_of(task: str, fence: int, worker: str) -> Lease:
    """The lease a worker means. Raises `InvalidArgument`."""
    names = parse(TASK, task, "task")
    return Lease(job_id=names["job"], task_id=names["task"], fence=fence, worker=worker)


def progress_of(
    job: Job, counts: Counts, running: Mapping[str, Held]
) -> tuple[float, list[scheduler.RenditionProgress]]:
    """How far a job and each of its renditions is."""
    ladder = media.Ladder.FromString(job.ladder)
    total = max(job.frame_count, 1)
    renditions = []
    for video in ladder.videos:
        need = plan.need_of(TaskKind.ENCODE_VIDEO, video.codec)
        frames = counts.frames.get(need, 0) + _running_frames(video.codec, running)
        share = min(frames / total, 1.0)
        renditions += [_rendition(rung.rendition_id, counts, share) for rung in video.rungs]
    for rung in ladder.audios:
        published = counts.published.get(rung.rendition_id, 0)
        share = min(published / max(counts.planned, 1), 1.0)
        renditions.append(_rendition(rung.rendition_id, counts, share))
    if job.state is JobState.SUCCEEDED:
        for rendition in renditions:
            rendition.progress = 1.0
        return 1.0, renditions
    overall = sum(rendition.progress for rendition in renditions) / len(renditions) if renditions else 0.0
    return overall, renditions


def _running_frames(codec: media.VideoCodec.ValueType, running: Mapping[str, Held]) -> float:
    prefix = f"{plan.VIDEO_PREFIX}{plan.VIDEO_NAMES[codec]}-"
    return sum(held.progress * held.frames for task_id, held in running.items() if task_id.startswith(prefix))


def _rendition(rendition_id: str, counts: Counts, share: float) -> scheduler.RenditionProgress:
    return scheduler.RenditionProgress(
        rendition_id=rendition_id,
        published_segment_count=counts.published.get(rendition_id, 0),
        planned_segment_count=counts.planned,
        progress=share,
    )


def job_message(job: Job, counts: Counts, running: Mapping[str, Held]) -> scheduler.Job:
    """A job as its owner sees it."""
    progress, renditions = progress_of(job, counts, running)
    return scheduler.Job(
        name=job.name,
        title=job.title,
        owner=job.owner,
        state=_job_state(job),
        error=status_of_failure(job.failure) if job.failure else None,
        task_count=counts.tasks,
        done_task_count=counts.done,
        progress=progress,
        renditions=renditions,
        create_time=timestamp_or_none(job.create_time),
        playable_time=timestamp_or_none(job.playable_time),
        end_time=timestamp_or_none(job.end_time),
        report=preprocessor.ProbeResult.FromString(job.probe).report if job.probe else None,
        highlights=scheduler.Job.FromString(job.highlights).highlights,
        ladder=media.Ladder.FromString(job.ladder) if job.ladder else None,
        failed_task_count=counts.failed,
        priority=_PRIORITIES[job.urgency],
        predicted_playable_time=timestamp_or_none(job.predicted_playable),
        predicted_end_time=timestamp_or_none(job.predicted_end),
    )


def _job_state(job: Job) -> scheduler.Job.State.ValueType:
    if job.paused and not job.state.ended:
        return scheduler.Job.STATE_PAUSED
    return scheduler.Job.State.Value(f"STATE_{job.state.value}")


def urgency_of(priority: scheduler.Job.Priority.ValueType) -> Urgency:
    """How urgent a priority is."""
    return next(urgency for urgency, value in _PRIORITIES.items() if value == priority)


def task_message(task: Task, job: Job) -> scheduler.Task:
    """A task as a worker gets it."""
    message = scheduler.Task(name=task.name, fence=task.fence, attempt=task.attempt)
    message.lease_duration.FromTimedelta(LEASE)
    getattr(message, task.kind.value.lower()).MergeFromString(plan.complete_spec(task, job))
    return message


def record_message(task: Task) -> encoder.EncodeRecord:
    """How the segments of a done encode came to be."""
    record = encoder.EncodeRecord(task=task.name, worker=f"workers/{task.worker}")
    if task.kind is TaskKind.ENCODE_VIDEO:
        record.video.MergeFromString(task.spec)
        video = encoder.EncodeVideoResult.FromString(task.result)
        record.encoder_build, record.command = video.encoder_build, video.command
        record.encoder = video.encoder
        record.renditions.extend(video.renditions)
    else:
        record.audio.MergeFromString(task.spec)
        sound = encoder.EncodeAudioResult.FromString(task.result)
        record.encoder_build, record.command = sound.encoder_build, sound.command
        record.encoder = sound.encoder
        record.renditions.append(sound.rendition)
    return record


def explanation(
    task: Task, attempts: list[Attempt], holding: Held | None, next_step: str
) -> scheduler.TaskExplanation:
    """A task with its history; `holding` while it runs."""
    return scheduler.TaskExplanation(
        task=task.name,
        summary=task.summary,
        kind=encoder.TaskKind.Value(f"TASK_KIND_{task.kind.value}"),
        priority=task.priority,
        state=_STATES[task.state],
        attempts=[attempt_message(attempt, holding) for attempt in attempts],
        next_step=next_step,
    )


def attempt_message(attempt: Attempt, holding: Held | None) -> scheduler.Attempt:
    """One try; a running one with the progress last heard."""
    live = holding is not None and holding.lease.fence == attempt.fence
    return scheduler.Attempt(
        attempt=attempt.attempt,
        worker=f"workers/{attempt.worker}",
        start_time=timestamp_or_none(attempt.start_time),
        end_time=timestamp_or_none(attempt.end_time),
        command=attempt.command,
        stderr_lines=attempt.stderr_lines,
        error=status_of_failure(attempt.failure) if attempt.failure else None,
        progress=holding.progress if live and holding else attempt.progress,
    )


def next_step(
    task: Task, last: Attempt | None, left_s: float, workers: Sequence[KnownWorker], now: datetime
) -> str:
    """What happens next and when, in words.

    `last` is its newest attempt; `left_s` is how long the lease of a running task lasts.
    """
    if task.state is TaskState.WAITING:
        able = [w for w in workers if w.connected(now) and task.need in _needs(w)]
        well = [w for w in able if w.may_work(now)]
        if task.not_before is not None and task.not_before > now:
            seconds = (task.not_before - now).total_seconds()
            full = last is not None and last.failure is not None and last.failure.reason == ORIGIN_FULL
            why = " The origin is full: make room. That uses up none of its attempts." if full else ""
            return f"Tried again in {seconds:.0f} s (attempt {task.attempt + 1}).{why}"
        if not able:
            return f"Waits for a worker that can {plan.need_in_words(task.need)}: none is connected."
        if not well:
            rests = [w.quarantine_end for w in able if not w.quarantine_reason]
            if not rests:
                names = ", ".join(f"workers/{w.worker_id}: {w.quarantine_reason}" for w in able)
                return f"Waits until an able worker is readmitted; all are in quarantine ({names})."
            return f"Waits until {min(rests):%H:%M:%S} UTC: every able worker failed several tasks in a row."
        return f"Goes to the next free slot of {len(well)} workers that can {plan.need_in_words(task.need)}."
    if task.state is TaskState.RUNNING:
        return f"Runs on workers/{task.worker}; given to another one if nothing is heard for {left_s:.0f} s."
    if task.state is TaskState.PUBLISHING:
        return "Done; its segments are being published."
    ends = {
        TaskState.SUCCEEDED: "Nothing: it is done.",
        TaskState.FAILED: "Nothing: it was given up. Retry the job to try it again.",
        TaskState.CANCELED: "Nothing: its job has ended.",
    }
    return ends[task.state]


def _needs(worker: KnownWorker) -> frozenset[str]:
    return plan.needs_of(encoder.Capabilities.FromString(worker.capabilities))


def worker_message(known: KnownWorker, tasks: Sequence[str], now: datetime) -> scheduler.Worker:
    """A worker as operators see it."""
    resting = known.quarantine_end > now and not known.quarantine_reason
    return scheduler.Worker(
        name=f"workers/{known.worker_id}",
        capabilities=encoder.Capabilities.FromString(known.capabilities),
        slot_count=known.slot_count,
        tasks=sorted(tasks),
        connected=known.connected(now),
        last_seen_time=timestamp_or_none(known.last_seen),
        quarantine_end_time=timestamp_or_none(known.quarantine_end if resting else None),
        quarantine_reason=known.quarantine_reason or (FAILED_IN_A_ROW if resting else ""),
    )


def result_of(done: api.TaskDone) -> plan.Result:
    """What came out of a task. Raises `InvalidArgument` when nothing did."""
    kind = done.WhichOneof("result")
    if kind is None:
        raise InvalidArgument("done.result", "is missing")
    result: plan.Result = getattr(done, kind)
    return result


def keys_of(result: plan.Result) -> list[str]:
    """The objects a result names, without init segments, which attempts share."""
    if isinstance(result, encoder.EncodeVideoResult):
        return [segment.object_key for rendition in result.renditions for segment in rendition.segments]
    if isinstance(result, encoder.EncodeAudioResult):
        return [segment.object_key for segment in result.rendition.segments]
    if isinstance(result, preprocessor.ExtractResult):
        return plan.extras_keys(result.extras)
    return []
