"""The port to the scheduler's durable state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from services.scheduler.model import (
    LEASE,
    Attempt,
    Candidate,
    Chunk,
    Failure,
    Job,
    JobState,
    Lease,
    NewTask,
    Task,
    TaskState,
    Urgency,
    Work,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What ending a job or task brought about."""

    #: False when it had ended before, or the fence was stale: nothing changed.
    changed: bool
    #: Leases that no longer hold.
    stopped: tuple[Lease, ...] = ()
    #: Set when the task goes back to wait: not before this moment.
    retry_at: datetime | None = None
    #: True when the job has ended with it.
    job_ended: bool = False


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a job is, from what is stored."""

    tasks: int = 0
    done: int = 0
    #: Given up.
    failed: int = 0
    #: Planned segments, the same for all renditions.
    planned: int = 0
    #: Frames encoded and stored, by need (`ENCODE_VIDEO/1`).
    frames: Mapping[str, int]
    #: Published segments, by rendition.
    published: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class KnownWorker:
    """A worker as it was last heard of; `capabilities` is `kino.encoder.v1.Capabilities`."""

    worker_id: str
    capabilities: bytes
    slot_count: int
    last_seen: datetime
    #: Id of its open stream, at whichever scheduler; empty when it has none.
    session: str = ""
    #: It gets no tasks before.
    quarantine_end: datetime = _EPOCH
    #: Not empty: it gets none until an operator readmits it.
    quarantine_reason: str = ""

    def connected(self, now: datetime) -> bool:
        """Whether its stream is open, as far as is stored: a scheduler that is gone says nothing any more."""
        return bool(self.session) and now - self.last_seen < LEASE

    def may_work(self, now: datetime) -> bool:
        """Whether it is in no quarantine."""
        return self.quarantine_end <= now and not self.quarantine_reason


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A lease whose worker was heard of."""

    lease: Lease
    #: When it ends now.
    expire: datetime
    progress: float


@dataclass(frozen=True, kw_only=True)
class Missed:
    """What a scheduler had not noticed until it told the store what it hears."""

    #: Leases that no longer hold.
    leases: frozenset[Lease]
    #: Streams whose workers have opened another one since.
    sessions: frozenset[str]


class Store(Protocol):
    """Every method is one transaction; transactions behave as if run one after the other, and are durable."""

    async def create_job(self, job: Job) -> Job:
        """Store a new job; the stored one when the id is taken."""

    async def job(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""

    async def jobs(self, owner: str | None, after: str, limit: int) -> list[Job]:
        """Newest first, from the one after `after` (`<create time µs>/<id>`, empty: from the first)."""

    async def unfinished_jobs(self) -> list[tuple[str, int]]:
        """Id and run of jobs whose workflow has not closed them; the run rises when a job is retried."""

    async def pause_job(self, job_id: str, *, paused: bool) -> Job:
        """Pause or resume a job. Raises `JobNotFound`, `JobEnded`."""

    async def prioritize_job(self, job_id: str, urgency: Urgency) -> Job:
        """Prefer a job or put it off. Raises `JobNotFound`, `JobEnded`."""

    async def retry_job(self, job_id: str) -> Job:
        """A failed or cancelled job begins again: what of it isn't done waits anew, with fresh attempts.

        Another one stays as it is. Raises `JobNotFound`, `JobEnding` before its workflow has closed it.
        """

    async def given_up(self, job_id: str) -> list[tuple[Task, Failure]]:
        """Tasks that failed and are missed, without spec and result, with why the last attempt failed."""

    async def open_work(self, job_id: str) -> list[Work]:
        """What of the job's tasks is not done."""

    async def predict(self, job_id: str, playable: datetime, end: datetime) -> None:
        """Store the first prediction; a later one changes nothing."""

    async def costs(self) -> dict[str, float]:
        """Measured µs for each frame, by need."""

    async def learn(self, measured: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Take measured costs (µs for each frame) into account; all there are now."""

    async def unswept_jobs(self, before: datetime) -> list[str]:
        """Jobs closed and ended before then that were not swept since."""

    async def swept(self, job_id: str) -> None:
        """What was written after the job's end is removed."""

    async def start_job(self, job_id: str) -> bool:
        """PENDING becomes RUNNING. False when the job has ended."""

    async def set_probe(self, job_id: str, probe: bytes, ladder: bytes, frame_count: int) -> None:
        """Store what the source is and what will be made of it."""

    async def end_job(self, job_id: str, state: JobState, failure: Failure | None, now: datetime) -> Ended:
        """End a job unless it has ended; its unfinished tasks are cancelled with it."""

    async def end_replaced(self, job: Job, kept: Collection[str], now: datetime) -> dict[str, Ended]:
        """Cancel the older jobs of a job's title, which it replaces, but for those named (`jobs/…`)."""

    async def close_job(self, job_id: str) -> None:
        """The workflow has cleaned up after the job."""

    async def add_tasks(self, job_id: str, tasks: Sequence[NewTask]) -> bool:
        """Add tasks that aren't there yet. False, adding none, when the job has ended."""

    async def extend(
        self,
        job_id: str,
        chunks: Sequence[Chunk],
        tasks: Sequence[NewTask],
        highlights: bytes,
        priorities: Mapping[str, int],
    ) -> bool:
        """Add planned chunks and tasks, replace the highlights and the priorities of waiting tasks by id.

        Repeating it changes nothing. False, changing nothing, when the job has ended.
        """

    async def chunks(self, job_id: str) -> list[Chunk]:
        """All planned chunks by number."""

    async def task(self, job_id: str, task_id: str) -> Task:
        """Raises `NotFound`."""

    async def tasks(self, job_id: str, prefix: str) -> list[Task]:
        """Tasks whose id begins so, by id."""

    async def done_encodes(
        self, job_id: str, after: str, limit: int, chosen: Callable[[str], bool]
    ) -> list[Task]:
        """Encodes that succeeded, by id, after `after`: the first `limit` of those chosen by id."""

    async def in_state(self, state: TaskState) -> list[Task]:
        """All tasks in a state, without spec and result."""

    async def has_open_tasks(self, job_id: str) -> bool:
        """Whether a task of the job has not ended."""

    async def counts(self, job_id: str) -> Counts:
        """How far the job is."""

    async def hello(
        self, worker: KnownWorker, named: Collection[Lease], now: datetime
    ) -> tuple[list[Task], list[Task]]:
        """A worker has opened a stream and names what it holds. Ends its other streams, wherever they are.

        Returns the tasks it keeps, their leases renewed, and those it was thought to hold and didn't name;
        without spec and result.
        """

    async def goodbye(self, worker_id: str, session: str, now: datetime) -> None:
        """A stream is closed."""

    async def renew(self, workers: Sequence[KnownWorker], heard: Sequence[Heard], now: datetime) -> Missed:
        """Note which workers were heard of, and how long their leases last."""

    async def assign(
        self,
        needs: frozenset[str],
        worker: str,
        session: str,
        now: datetime,
        pick: Callable[[Sequence[Candidate]], Candidate],
        *,
        most_per_owner: int = 0,
    ) -> Task | None:
        """Give the worker the best waiting task of the job that `pick` chooses, with a higher fence.

        `most_per_owner`: running tasks that one owner's jobs may have, 0 for any number. None when nothing
        waits that it may do, when it is in quarantine, or when `session` is no longer its stream.
        """

    async def expired(self, now: datetime) -> list[Task]:
        """Running tasks whose lease has ended, without spec and result."""

    async def running(self, job_id: str) -> list[Task]:
        """The job's running tasks, without spec and result."""

    async def take_publications(self, now: datetime, *, all_: bool = False) -> list[Lease]:
        """Stored results whose publication nobody has cared for lately; the caller does for some time now.

        `all_`: also those that somebody may be caring for.
        """

    async def served(self) -> list[int]:
        """Work given out so far to each job that has not ended."""

    async def next_retry(self) -> datetime | None:
        """When the next task that may not start yet may."""

    async def complete(
        self, lease: Lease, state: TaskState, result: bytes, command: str, now: datetime
    ) -> bool:
        """Store a result and give up the lease. False when the lease no longer holds.

        A result that waits for its publication is the caller's to publish for some time.
        """

    async def published(
        self, job_id: str, rendition: str, keys: Mapping[int, str], playable: datetime | None
    ) -> None:
        """Note segments the catalogue has taken, by number; `playable`: since when the title is, if it is."""

    async def settle(self, job_id: str, task_id: str) -> None:
        """PUBLISHING becomes SUCCEEDED."""

    async def fail(self, lease: Lease, attempt: Attempt, now: datetime, *, expired: bool = False) -> Ended:
        """Note a failed attempt: the task waits again, or, when it is used up (`blame_of`), is given up.

        The job ends with it when nothing can go on without it, or when too many are given up. `expired`:
        only if its lease has ended, else nothing changes. `attempt` brings command, error lines, failure,
        progress.
        """

    async def fail_publication(self, job_id: str, task_id: str, failure: Failure, now: datetime) -> Ended:
        """A stored result can't be published: the task fails and its job with it."""

    async def explain(
        self, job_id: str, after: Sequence[object], limit: int
    ) -> list[tuple[Task, list[Attempt]]]:
        """Tasks with their attempts: failed, running, waiting, done, cancelled; each by priority, then id.

        `after` is (rank, priority, id) of the last one before, empty for the first page; see `rank_of`.
        """

    async def workers(self, since: datetime) -> list[KnownWorker]:
        """Workers heard of since then, and those that an operator must readmit, by id."""

    async def quarantine_worker(self, worker_id: str, reason: str) -> tuple[KnownWorker, list[Task]]:
        """Give a worker no tasks until it is readmitted; an older reason stays.

        Also what it is doing, without spec and result. Raises `WorkerNotFound`.
        """

    async def readmit_worker(self, worker_id: str) -> KnownWorker:
        """End a worker's quarantine. Raises `WorkerNotFound`."""


#: Order of states in `explain`.
RANKS: Mapping[TaskState, int] = {
    TaskState.FAILED: 0,
    TaskState.RUNNING: 1,
    TaskState.PUBLISHING: 1,
    TaskState.WAITING: 2,
    TaskState.SUCCEEDED: 3,
    TaskState.CANCELED: 4,
}
