"""Jobs, tasks, attempts and the rules of who works on what; no I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.runtime.errors import Code, InvalidArgument, NotFound

#: How long a lease lasts without a word from the worker.
LEASE = timedelta(seconds=20)
#: A running task whose progress stands still for so long is stopped and tried again.
STALL = timedelta(seconds=120)
#: Attempts that may fail before the task, and with it the job, is given up.
MAX_FAILURES = 3
#: Workers that may vanish with one task before it is taken for the cause; more than restarts of a fleet take.
MAX_LOSSES = 10
#: Chunks that start before this belong to the opening of the film.
OPENING = timedelta(seconds=10)
MAX_STDERR_LINES = 40
MAX_COMMAND_CHARS = 16_384
MAX_LINE_CHARS = 2_000

#: The source is at fault: no other attempt will do better.
FINAL_CODES = frozenset({Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION})
#: The worker is at fault (it goes away): the task keeps its attempts.
WORKER_CODES = frozenset({Code.CANCELLED, Code.UNAVAILABLE})


class JobNotFound(NotFound):
    """{resource} does not exist."""

    reason = "JOB_NOT_FOUND"


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
    best tier (openings before bulk), ties to the least served; the fourth to the least served whatever its
    tier, so that no flow of new films starves an old one.
    """
    tagged = [replace(candidate, served=max(candidate.served, virtual)) for candidate in candidates]
    if is_fair(turn):
        return min(tagged, key=lambda c: (c.served, c.job_id))
    return min(tagged, key=lambda c: (tier_of(c.priority), c.served, c.job_id))


def is_fair(turn: int) -> bool:
    """Whether this turn goes to the least served job. Only then does the virtual time move, to its tag."""
    return turn % 4 == 3


def retry_delay(failures: int, losses: int, *, counts: bool) -> timedelta:
    """How long to wait after the nth failure; the first lost worker costs no time at all."""
    exponent = failures - 1 if counts else losses - 2
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
