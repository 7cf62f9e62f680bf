"""Jobs, tasks, attempts and the rules of who works on what; no I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.runtime.errors import Code, FailedPrecondition, InvalidArgument, NotFound

#: How long a lease lasts without a word from the worker.
LEASE = timedelta(seconds=20)
#: A running task whose progress stands still for so long is stopped and tried again.
STALL = timedelta(seconds=120)
#: Attempts that may fail before the task, and with it the job, is given up.
MAX_FAILURES = 3
#: Workers that may vanish with one task before it is taken for the cause; more than restarts of a fleet take.
MAX_LOSSES = 10
#: Tasks that may be given up before the job is, for then the source as a whole is bad.
MAX_GIVEN_UP = 8
#: Tasks in a row, each another, that a worker may fail before it gets none for a while.
MAX_WORKER_FAILURES = 3
QUARANTINE = timedelta(minutes=10)
#: For so long after a failure another worker than the one it failed on is preferred.
ELSEWHERE = timedelta(seconds=10)
#: A running task is stopped when it takes so much longer than others of its kind, and as long as this.
OVERDUE_FACTOR = 10
OVERDUE_LEAST = timedelta(minutes=2)
#: Chunks that start before this belong to the opening of the film.
OPENING = timedelta(seconds=10)
MAX_STDERR_LINES = 40
MAX_COMMAND_CHARS = 16_384
MAX_LINE_CHARS = 2_000

_SOURCE_CODES = frozenset({Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION})
_WORKER_CODES = frozenset({Code.CANCELLED, Code.UNAVAILABLE})
#: What the catalogue answers to a job whose title got a newer source.
_REPLACED_REASONS = frozenset({"NOT_THE_TITLES_JOB", "MEDIA_REPLACED"})
#: What a worker reports when the origin has no room for what it made.
ORIGIN_FULL = "STORAGE_FULL"


class JobNotFound(NotFound):
    """{resource} does not exist."""

    reason = "JOB_NOT_FOUND"


class WorkerNotFound(NotFound):
    """{resource} was never heard of."""

    reason = "WORKER_NOT_FOUND"


class JobEnded(FailedPrecondition):
    """{job} has ended: there is nothing to pause, resume or prioritise."""

    reason = "JOB_ENDED"
    fields = ("job",)


class JobEnding(FailedPrecondition):
    """{job} is still being cleared up: retry it in a moment."""

    reason = "JOB_ENDING"
    fields = ("job",)


class HelloMissing(InvalidArgument):
    """{field}: {problem}"""

    reason = "HELLO_MISSING"


class JobState(enum.Enum):
    """Where a job stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (JobState.PENDING, JobState.RUNNING)


class Urgency(enum.IntEnum):
    """Which jobs go first, higher before lower."""

    LOW = -1
    NORMAL = 0
    URGENT = 1


class TaskState(enum.Enum):
    """Where a task stands."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    #: The result is stored, its segments aren't all in the catalogue yet.
    PUBLISHING = "PUBLISHING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED)


class TaskKind(enum.Enum):
    """What a task does."""

    PROBE = "PROBE"
    ANALYZE = "ANALYZE"
    ENCODE_VIDEO = "ENCODE_VIDEO"
    ENCODE_AUDIO = "ENCODE_AUDIO"
    EXTRACT = "EXTRACT"
    TRIAL = "TRIAL"

    @property
    def leads_on(self) -> bool:
        """Whether nothing else of a job can be done without it."""
        return self in (TaskKind.PROBE, TaskKind.ANALYZE)

    @property
    def dispensable(self) -> bool:
        """Whether a title is whole without it."""
        return self is TaskKind.TRIAL

    @property
    def publishes(self) -> bool:
        """Whether its result goes to the catalogue."""
        return self in (TaskKind.ENCODE_VIDEO, TaskKind.ENCODE_AUDIO, TaskKind.EXTRACT)


class Tier(enum.IntEnum):
    """What goes first, between the tasks of a job and, three times of four, between jobs."""

    PROBE = 0
    OPENING = 1
    ANALYZE = 2
    HIGHLIGHT = 3
    REST = 4


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something went wrong, as it is shown to people and programs."""

    code: Code
    #: UPPER_SNAKE.
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)


class Blame(enum.Enum):
    """Whose account a failed attempt goes to."""

    #: No other attempt will do better: the task is given up at once.
    SOURCE = "SOURCE"
    #: One of its few attempts is used up, and its worker is watched.
    TASK = "TASK"
    #: It went away; the task keeps its attempts.
    WORKER = "WORKER"
    #: Neither: the origin is full. The task waits for as long as it takes.
    ORIGIN = "ORIGIN"


def blame_of(failure: Failure) -> Blame:
    """Whose account a failure goes to."""
    if failure.reason == ORIGIN_FULL:
        return Blame.ORIGIN
    if failure.code in _SOURCE_CODES:
        return Blame.SOURCE
    return Blame.WORKER if failure.code in _WORKER_CODES else Blame.TASK


#: Why a job ends whose title got a newer source.
REPLACED = Failure(
    code=Code.CANCELLED,
    reason="SOURCE_REPLACED",
    message="A newer source of the title took the place of this one.",
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The processing of one source. Messages of other contracts pass through as their serialised bytes."""

    job_id: str
    title: str
    owner: str
    #: `kino.preprocessor.v1.Source`.
    source: bytes
    #: `kino.scheduler.v1.Job` holding only the highlights given by the uploader.
    given: bytes
    state: JobState = JobState.PENDING
    failure: Failure | None = None
    create_time: datetime
    playable_time: datetime | None = None
    end_time: datetime | None = None
    #: `kino.preprocessor.v1.ProbeResult`, once read.
    probe: bytes = b""
    #: `kino.media.v1.Ladder`, once planned.
    ladder: bytes = b""
    #: `kino.scheduler.v1.Job` holding only the highlights known now.
    highlights: bytes = b""
    #: Presented frames of the source; 0 until it is read.
    frame_count: int = 0
    #: While true nothing more is begun.
    paused: bool = False
    urgency: Urgency = Urgency.NORMAL
    #: What was expected when the opening was handed out.
    predicted_playable: datetime | None = None
    predicted_end: datetime | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"jobs/{self.job_id}"

    @property
    def output_prefix(self) -> str:
        """Where in the origin the job's objects are."""
        return f"media/{self.title.removeprefix('titles/')}/{self.job_id}"


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A task to add to a job."""

    task_id: str
    kind: TaskKind
    #: What a worker must be able to do, for example `ENCODE_VIDEO/1` (kind and codec number).
    need: str
    priority: int
    #: Frames it covers; the measure of its size.
    frames: int
    #: Serialised message of its kind.
    spec: bytes
    #: What it does, in words.
    summary: str
    #: Number of the chunk; -1 where it isn't one chunk.
    chunk: int = -1


@dataclass(frozen=True, kw_only=True)
class Task(NewTask):
    """A task as it stands."""

    job_id: str
    state: TaskState
    #: Rises with every assignment.
    fence: int
    #: Number of assignments so far.
    attempt: int
    failures: int
    losses: int
    worker: str
    #: Not assigned before this moment.
    not_before: datetime | None
    #: When the lease of a running task ends unless its worker is heard.
    expire: datetime
    #: How far a running task was when that was last stored, 0 to 1.
    progress: float
    #: Serialised result message, once there is one.
    result: bytes = b""

    @property
    def name(self) -> str:
        """Resource name."""
        return f"jobs/{self.job_id}/tasks/{self.task_id}"

    @property
    def lease(self) -> Lease:
        """The lease it is, or was last, given under."""
        return Lease(job_id=self.job_id, task_id=self.task_id, fence=self.fence, worker=self.worker)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a task."""

    fence: int
    attempt: int
    worker: str
    start_time: datetime
    end_time: datetime | None = None
    command: str = ""
    stderr_lines: tuple[str, ...] = ()
    failure: Failure | None = None
    progress: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of the source that becomes one segment in every rendition; times in ticks of the timeline."""

    number: int
    start_frame: int
    frame_count: int
    start_ticks: int
    duration_ticks: int

    @property
    def end_ticks(self) -> int:
        """Where the next one starts."""
        return self.start_ticks + self.duration_ticks


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A task given to a worker, as it is told."""

    job_id: str
    task_id: str
    fence: int
    worker: str

    @property
    def task(self) -> str:
        """Resource name of the task."""
        return f"jobs/{self.job_id}/tasks/{self.task_id}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A job with a waiting task that a worker could take."""

    job_id: str
    #: Frames of work given out so far.
    served: int
    #: Best priority of its waiting tasks.
    priority: int
    urgency: Urgency = Urgency.NORMAL


@dataclass(frozen=True, kw_only=True)
class Work:
    """Tasks of a job that are not done, summed up by what they need and how soon they come."""

    need: str
    opening: bool
    frames: int


_TIER = 1 << 48
_CODEC = 1 << 40


def priority(tier: Tier, *, codec: int = 0, position: int = 0) -> int:
    """The order of a job's tasks, lower first: tier, then codec (H.264 is 1, AV1 2), then place."""
    if not (0 <= codec < 256 and 0 <= position < _CODEC):
        raise ValueError(f"codec {codec}, position {position}")
    return tier * _TIER + codec * _CODEC + position


def tier_of(value: int) -> Tier:
    """The tier of a priority."""
    return Tier(value // _TIER)


def chunk_tier(chunk: Chunk, timescale: int, highlights_ns: Iterable[tuple[int, int]]) -> Tier:
    """The tier of a chunk: opening, in a highlight (starts and ends in ns), or the rest."""
    start_ns = chunk.start_ticks * 10**9 // timescale
    end_ns = chunk.end_ticks * 10**9 // timescale
    if start_ns < OPENING / timedelta(microseconds=1) * 1000:
        return Tier.OPENING
    if any(start_ns < end and start < end_ns for start, end in highlights_ns):
        return Tier.HIGHLIGHT
    return Tier.REST


def choose(candidates: Sequence[Candidate], *, virtual: int, turn: int) -> Candidate:
    """Which job the next free slot works for, `served` being its tag.

    Start-time fair queueing (Goyal, Vin, Cheng 1996): a job's tag is the work given to it, but no less than
    the virtual time, so that one that had nothing to do earns no arrears. Of four turns three go to the
    most urgent, of these to the best tier (openings before bulk), ties to the least served; the fourth to
    the least served whatever it is, so that no flow of new or urgent films starves an old one.
    """
    tagged = [replace(candidate, served=max(candidate.served, virtual)) for candidate in candidates]
    if is_fair(turn):
        return min(tagged, key=lambda c: (c.served, c.job_id))
    return min(tagged, key=lambda c: (-c.urgency, tier_of(c.priority), c.served, c.job_id))


def is_fair(turn: int) -> bool:
    """Whether this turn goes to the least served job. Only then does the virtual time move, to its tag."""
    return turn % 4 == 3


def retry_delay(blame: Blame, before: int) -> timedelta:
    """How long to wait when so many attempts ended so before; the first lost worker costs no time at all."""
    exponent = before - 1 if blame is Blame.WORKER else before
    return timedelta(seconds=min(4**exponent, 60) if exponent >= 0 else 0)


def in_words(task: Task, failure: Failure, attempts: int) -> Failure:
    """The failure of a job whose task is given up, for its uploader."""
    tries = "attempt" if attempts == 1 else "attempts"
    message = f"{task.summary} failed after {attempts} {tries}: {failure.message}"
    return Failure(
        code=failure.code,
        reason=failure.reason,
        message=message,
        metadata={**failure.metadata, "task": task.name},
    )


def end_by(failure: Failure) -> tuple[JobState, Failure]:
    """How a job ends by a failure: one whose source was replaced has not failed, nobody wants it any more."""
    replaced = failure.reason in _REPLACED_REASONS
    return (JobState.CANCELED, REPLACED) if replaced else (JobState.FAILED, failure)


def summed_up(given_up: Sequence[tuple[Task, Failure]]) -> Failure | None:
    """Why a job has failed whose tasks, but for these, are done; None when there are none."""
    if not given_up:
        return None
    task, failure = given_up[0]
    first = in_words(task, failure, task.attempt)
    others = len(given_up) - 1
    more = f" So did {others} other {'part' if others == 1 else 'parts'}." if others else ""
    return replace(first, message=f"{first.message}{more} The rest of the title is done.")


def overdue_after(frames: int, us_per_frame: float | None) -> timedelta | None:
    """How long a task of so many frames may run; None while nothing is known of its cost."""
    if us_per_frame is None:
        return None
    return max(OVERDUE_LEAST, timedelta(microseconds=us_per_frame * max(frames, 1)) * OVERDUE_FACTOR)


def learned(known: float | None, measured: float) -> float:
    """A cost, once one more is measured: newer ones count more."""
    return measured if known is None else known + (measured - known) / 8


def predicted(
    work: Iterable[Work], costs: Mapping[str, float], slots: int, unplanned: Mapping[str, int]
) -> tuple[timedelta, timedelta] | None:
    """How long until a title is playable and complete; `unplanned` are frames not handed out, by need.

    None when no slot is there or a cost isn't known. It takes the slots for free of other titles.
    """
    work = list(work)
    needs = {each.need for each in work} | set(unplanned)
    if slots < 1 or not needs <= costs.keys():
        return None
    opening = sum(costs[each.need] * each.frames for each in work if each.opening)
    whole = sum(costs[each.need] * each.frames for each in work)
    whole += sum(costs[need] * frames for need, frames in unplanned.items())
    return timedelta(microseconds=opening / slots), timedelta(microseconds=whole / slots)
