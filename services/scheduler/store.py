"""The port to the scheduler's durable state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.scheduler.model import (
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
)


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


class Store(Protocol):
    """Every method is one transaction; transactions behave as if run one after the other, and are durable."""

    async def create_job(self, job: Job) -> Job:
        """Store a new job; the stored one when the id is taken."""

    async def job(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""

    async def jobs(self, owner: str | None, after: str, limit: int) -> list[Job]:
        """Newest first, from the one after `after` (`<create time µs>/<id>`, empty: from the first)."""

    async def unfinished_jobs(self) -> list[str]:
        """Ids of jobs whose workflow has not closed them."""

    async def start_job(self, job_id: str) -> bool:
        """PENDING becomes RUNNING. False when the job has ended."""

    async def set_probe(self, job_id: str, probe: bytes, ladder: bytes, frame_count: int) -> None:
        """Store what the source is and what will be made of it."""

    async def end_job(self, job_id: str, state: JobState, failure: Failure | None, now: datetime) -> Ended:
        """End a job unless it has ended; its unfinished tasks are cancelled with it."""

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

    async def in_state(self, state: TaskState) -> list[Task]:
        """All tasks in a state, without spec and result."""

    async def open_tasks(self, job_id: str) -> int:
        """Number of the job's tasks that have not ended."""

    async def counts(self, job_id: str) -> Counts:
        """How far the job is."""

    async def assign(
        self,
        needs: frozenset[str],
        worker: str,
        now: datetime,
        pick: Callable[[Sequence[Candidate]], Candidate],
    ) -> Task | None:
        """Give the worker the best waiting task of the job that `pick` chooses, with a higher fence.

        None when no waiting task is among its `needs`.
        """

    async def served(self) -> list[int]:
        """Work given out so far to each job that has not ended."""

    async def next_retry(self) -> datetime | None:
        """When the next task that may not start yet may."""

    async def complete(
        self, lease: Lease, state: TaskState, result: bytes, command: str, now: datetime
    ) -> bool:
        """Store a result and give up the lease. False when the lease no longer holds."""

    async def published(
        self, job_id: str, rendition: str, keys: Mapping[int, str], playable: datetime | None
    ) -> None:
        """Note segments the catalogue has taken, by number; `playable`: since when the title is, if it is."""

    async def settle(self, job_id: str, task_id: str) -> None:
        """PUBLISHING becomes SUCCEEDED."""

    async def fail(
        self, lease: Lease, attempt: Attempt, now: datetime, *, counts: bool, final: bool
    ) -> Ended:
        """Note a failed attempt: the task waits again, or, when it is used up, fails and its job with it.

        `counts`: a failing of the task, else of its worker. `attempt` brings command, error lines, failure,
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

    async def see_worker(self, worker: KnownWorker) -> None:
        """Remember a worker."""

    async def workers(self, since: datetime) -> list[KnownWorker]:
        """Workers heard of since then, by id."""


#: Order of states in `explain`.
RANKS: Mapping[TaskState, int] = {
    TaskState.FAILED: 0,
    TaskState.RUNNING: 1,
    TaskState.PUBLISHING: 1,
    TaskState.WAITING: 2,
    TaskState.SUCCEEDED: 3,
    TaskState.CANCELED: 4,
}
