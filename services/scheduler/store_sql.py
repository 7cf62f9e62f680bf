"""The scheduler's state in SQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, and_, func, insert, select, tuple_, update

from services.runtime.sql import Database
from services.scheduler.model import (
    MAX_FAILURES,
    MAX_LOSSES,
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
    in_words,
    retry_delay,
)
from services.scheduler.schema import (
    ATTEMPTS,
    CHUNKS,
    JOBS,
    LIGHT,
    SEGMENTS,
    TASKS,
    WORKERS,
    attempt_of,
    chunk_of,
    failure_text,
    from_us,
    job_of,
    task_of,
    to_us,
)
from services.scheduler.statements import (
    OPEN,
    end_attempt,
    finish_job,
    held_task,
    insert_tasks,
    is_task,
    read_job,
    read_task,
    set_job,
    set_task,
    take_lease,
)
from services.scheduler.store import Counts, Ended, KnownWorker

_LIVE = (JobState.PENDING.value, JobState.RUNNING.value)


class SqlStore:
    """See `services.scheduler.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create_job(self, job: Job) -> Job:
        """See `Store.create_job`."""

        def run(conn: Connection) -> Job:
            row = conn.execute(select(JOBS).where(JOBS.c.job_id == job.job_id)).first()
            if row is not None:
                return job_of(row)
            conn.execute(
                insert(JOBS).values(
                    job_id=job.job_id,
                    title=job.title,
                    owner=job.owner,
                    source=job.source,
                    given=job.given,
                    state=job.state.value,
                    create_time_us=to_us(job.create_time),
                    probe=b"",
                    ladder=b"",
                    highlights=job.given,
                    frame_count=0,
                    served=0,
                    closed=False,
                )
            )
            return replace(job, highlights=job.given)

        return await self._db.write(run)

    async def job(self, job_id: str) -> Job:
        """See `Store.job`."""
        return await self._db.read(lambda conn: read_job(conn, job_id))

    async def jobs(self, owner: str | None, after: str, limit: int) -> list[Job]:
        """See `Store.jobs`."""
        query = select(JOBS).order_by(JOBS.c.create_time_us.desc(), JOBS.c.job_id.desc()).limit(limit)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        if after:
            created, _, job_id = after.partition("/")
            query = query.where(tuple_(JOBS.c.create_time_us, JOBS.c.job_id) < (int(created), job_id))
        return await self._db.read(lambda conn: [job_of(row) for row in conn.execute(query)])

    async def unfinished_jobs(self) -> list[str]:
        """See `Store.unfinished_jobs`."""
        query = select(JOBS.c.job_id).where(~JOBS.c.closed).order_by(JOBS.c.create_time_us)
        return await self._db.read(lambda conn: list(conn.execute(query).scalars()))

    async def start_job(self, job_id: str) -> bool:
        """See `Store.start_job`."""

        def run(conn: Connection) -> bool:
            live = not read_job(conn, job_id).state.ended
            if live:
                set_job(conn, job_id, state=JobState.RUNNING.value)
            return live

        return await self._db.write(run)

    async def set_probe(self, job_id: str, probe: bytes, ladder: bytes, frame_count: int) -> None:
        """See `Store.set_probe`."""
        await self._db.write(
            lambda conn: set_job(conn, job_id, probe=probe, ladder=ladder, frame_count=frame_count)
        )

    async def end_job(self, job_id: str, state: JobState, failure: Failure | None, now: datetime) -> Ended:
        """See `Store.end_job`."""
        return await self._db.write(lambda conn: finish_job(conn, job_id, state, failure, now))

    async def close_job(self, job_id: str) -> None:
        """See `Store.close_job`."""
        await self._db.write(lambda conn: set_job(conn, job_id, closed=True))

    async def add_tasks(self, job_id: str, tasks: Sequence[NewTask]) -> bool:
        """See `Store.add_tasks`."""

        def run(conn: Connection) -> bool:
            if read_job(conn, job_id).state.ended:
                return False
            insert_tasks(conn, job_id, tasks)
            return True

        return await self._db.write(run)

    async def extend(
        self, job_id: str, chunks: Sequence[Chunk], tasks: Sequence[NewTask], highlights: bytes,
        priorities: Mapping[str, int],
    ) -> bool:  # fmt: skip
        """See `Store.extend`."""

        def run(conn: Connection) -> bool:
            if read_job(conn, job_id).state.ended:
                return False
            known = set(conn.execute(select(CHUNKS.c.number).where(CHUNKS.c.job_id == job_id)).scalars())
            new = [{"job_id": job_id, **asdict(chunk)} for chunk in chunks if chunk.number not in known]
            if new:
                conn.execute(insert(CHUNKS), new)
            set_job(conn, job_id, highlights=highlights)
            for task_id, value in priorities.items():
                waiting = TASKS.c.state == TaskState.WAITING.value
                conn.execute(update(TASKS).where(is_task(job_id, task_id), waiting).values(priority=value))
            insert_tasks(conn, job_id, tasks)
            return True

        return await self._db.write(run)

    async def chunks(self, job_id: str) -> list[Chunk]:
        """See `Store.chunks`."""
        query = select(CHUNKS).where(CHUNKS.c.job_id == job_id).order_by(CHUNKS.c.number)
        return await self._db.read(lambda conn: [chunk_of(row) for row in conn.execute(query)])

    async def task(self, job_id: str, task_id: str) -> Task:
        """See `Store.task`."""
        return await self._db.read(lambda conn: read_task(conn, job_id, task_id))

    async def tasks(self, job_id: str, prefix: str) -> list[Task]:
        """See `Store.tasks`."""
        query = (
            select(TASKS)
            .where(TASKS.c.job_id == job_id, TASKS.c.task_id.startswith(prefix, autoescape=True))
            .order_by(TASKS.c.task_id)
        )
        return await self._db.read(lambda conn: [task_of(row) for row in conn.execute(query)])

    async def in_state(self, state: TaskState) -> list[Task]:
        """See `Store.in_state`."""
        query = select(*LIGHT).where(TASKS.c.state == state.value).order_by(TASKS.c.job_id, TASKS.c.task_id)
        return await self._db.read(lambda conn: [task_of(row) for row in conn.execute(query)])

    async def open_tasks(self, job_id: str) -> int:
        """See `Store.open_tasks`."""
        query = select(func.count()).where(TASKS.c.job_id == job_id, TASKS.c.state.in_(OPEN))
        return await self._db.read(lambda conn: int(conn.execute(query).scalar_one()))

    async def counts(self, job_id: str) -> Counts:
        """See `Store.counts`."""

        def run(conn: Connection) -> Counts:
            tasks = conn.execute(
                select(
                    TASKS.c.need,
                    TASKS.c.state,
                    func.count().label("n"),
                    func.sum(TASKS.c.frames).label("frames"),
                )
                .where(TASKS.c.job_id == job_id)
                .group_by(TASKS.c.need, TASKS.c.state)
            ).all()
            done = [
                row for row in tasks if row.state in (TaskState.SUCCEEDED.value, TaskState.PUBLISHING.value)
            ]
            frames: dict[str, int] = {}
            for row in done:
                frames[row.need] = frames.get(row.need, 0) + int(row.frames)
            published = conn.execute(
                select(SEGMENTS.c.rendition_id, func.count().label("n"))
                .where(SEGMENTS.c.job_id == job_id)
                .group_by(SEGMENTS.c.rendition_id)
            )
            planned = conn.execute(select(func.count()).select_from(CHUNKS).where(CHUNKS.c.job_id == job_id))
            return Counts(
                tasks=sum(row.n for row in tasks),
                done=sum(row.n for row in done if row.state == TaskState.SUCCEEDED.value),
                planned=int(planned.scalar_one()),
                frames=frames,
                published={row.rendition_id: row.n for row in published},
            )

        return await self._db.read(run)

    async def assign(
        self,
        needs: frozenset[str],
        worker: str,
        now: datetime,
        pick: Callable[[Sequence[Candidate]], Candidate],
    ) -> Task | None:
        """See `Store.assign`."""
        ready = and_(
            TASKS.c.state == TaskState.WAITING.value,
            TASKS.c.need.in_(needs),
            TASKS.c.not_before_us <= to_us(now),
        )

        def run(conn: Connection) -> Task | None:
            rows = conn.execute(
                select(TASKS.c.job_id, JOBS.c.served, func.min(TASKS.c.priority).label("priority"))
                .join(JOBS, JOBS.c.job_id == TASKS.c.job_id)
                .where(ready)
                .group_by(TASKS.c.job_id, JOBS.c.served)
            ).all()
            if not rows:
                return None
            chosen = pick(
                [Candidate(job_id=row.job_id, served=row.served, priority=row.priority) for row in rows]
            )
            best = conn.execute(
                select(TASKS)
                .where(ready, TASKS.c.job_id == chosen.job_id)
                .order_by(TASKS.c.priority, TASKS.c.task_id)
                .limit(1)
            ).one()
            set_job(conn, chosen.job_id, served=chosen.served + max(best.frames, 1))
            return take_lease(conn, task_of(best), worker, now)

        return await self._db.write(run)

    async def served(self) -> list[int]:
        """See `Store.served`."""
        query = select(JOBS.c.served).where(JOBS.c.state.in_(_LIVE))
        return await self._db.read(lambda conn: list(conn.execute(query).scalars()))

    async def next_retry(self) -> datetime | None:
        """See `Store.next_retry`."""
        query = select(func.min(TASKS.c.not_before_us)).where(
            TASKS.c.state == TaskState.WAITING.value, TASKS.c.not_before_us > 0
        )
        value = await self._db.read(lambda conn: conn.execute(query).scalar())
        return None if value is None else from_us(value)

    async def complete(
        self, lease: Lease, state: TaskState, result: bytes, command: str, now: datetime
    ) -> bool:
        """See `Store.complete`."""

        def run(conn: Connection) -> bool:
            if held_task(conn, lease) is None:
                return False
            set_task(conn, lease.job_id, lease.task_id, state, result=result)
            end_attempt(conn, lease, now, command=command, progress=1.0)
            return True

        return await self._db.write(run)

    async def published(
        self, job_id: str, rendition: str, keys: Mapping[int, str], playable: datetime | None
    ) -> None:
        """See `Store.published`."""

        def run(conn: Connection) -> None:
            known = set(
                conn.execute(
                    select(SEGMENTS.c.number).where(
                        SEGMENTS.c.job_id == job_id, SEGMENTS.c.rendition_id == rendition
                    )
                ).scalars()
            )
            new = [
                {"job_id": job_id, "rendition_id": rendition, "number": number, "object_key": key}
                for number, key in keys.items()
                if number not in known
            ]
            if new:
                conn.execute(insert(SEGMENTS), new)
            if playable is not None and read_job(conn, job_id).playable_time is None:
                set_job(conn, job_id, playable_time_us=to_us(playable))

        await self._db.write(run)

    async def settle(self, job_id: str, task_id: str) -> None:
        """See `Store.settle`."""

        def run(conn: Connection) -> None:
            if read_task(conn, job_id, task_id).state is TaskState.PUBLISHING:
                set_task(conn, job_id, task_id, TaskState.SUCCEEDED)

        await self._db.write(run)

    async def fail(
        self, lease: Lease, attempt: Attempt, now: datetime, *, counts: bool, final: bool
    ) -> Ended:
        """See `Store.fail`."""

        def run(conn: Connection) -> Ended:
            task = held_task(conn, lease)
            if task is None or attempt.failure is None:
                return Ended(changed=False)
            end_attempt(
                conn, lease, now, command=attempt.command, progress=attempt.progress,
                stderr_lines=json.dumps(attempt.stderr_lines), failure=failure_text(attempt.failure),
            )  # fmt: skip
            failures, losses = task.failures + int(counts), task.losses + int(not counts)
            if final or failures >= MAX_FAILURES or losses >= MAX_LOSSES:
                set_task(conn, task.job_id, task.task_id, TaskState.FAILED, failures=failures, losses=losses)
                told = in_words(task, attempt.failure, task.attempt)
                return replace(finish_job(conn, task.job_id, JobState.FAILED, told, now), changed=True)
            retry_at = now + retry_delay(failures, losses, counts=counts)
            set_task(
                conn, task.job_id, task.task_id, TaskState.WAITING, failures=failures, losses=losses,
                not_before_us=to_us(retry_at),
            )  # fmt: skip
            return Ended(changed=True, retry_at=retry_at)

        return await self._db.write(run)

    async def fail_publication(self, job_id: str, task_id: str, failure: Failure, now: datetime) -> Ended:
        """See `Store.fail_publication`."""

        def run(conn: Connection) -> Ended:
            task = read_task(conn, job_id, task_id)
            if task.state.ended:
                return Ended(changed=False)
            set_task(conn, job_id, task_id, TaskState.FAILED)
            return finish_job(conn, job_id, JobState.FAILED, in_words(task, failure, task.attempt), now)

        return await self._db.write(run)

    async def explain(
        self, job_id: str, after: Sequence[object], limit: int
    ) -> list[tuple[Task, list[Attempt]]]:
        """See `Store.explain`."""
        order = (TASKS.c.rank, TASKS.c.priority, TASKS.c.task_id)
        query = select(*LIGHT).where(TASKS.c.job_id == job_id).order_by(*order).limit(limit)
        if after:
            query = query.where(tuple_(*order) > tuple(after))

        def run(conn: Connection) -> list[tuple[Task, list[Attempt]]]:
            tasks = [task_of(row) for row in conn.execute(query)]
            tried: dict[str, list[Attempt]] = {task.task_id: [] for task in tasks}
            rows = conn.execute(
                select(ATTEMPTS)
                .where(ATTEMPTS.c.job_id == job_id, ATTEMPTS.c.task_id.in_(list(tried)))
                .order_by(ATTEMPTS.c.fence)
            )
            for row in rows:
                tried[row.task_id].append(attempt_of(row))
            return [(task, tried[task.task_id]) for task in tasks]

        return await self._db.read(run)

    async def see_worker(self, worker: KnownWorker) -> None:
        """See `Store.see_worker`."""
        values = {
            "capabilities": worker.capabilities,
            "slot_count": worker.slot_count,
            "last_seen_us": to_us(worker.last_seen),
        }

        def run(conn: Connection) -> None:
            known = WORKERS.c.worker_id == worker.worker_id
            if not conn.execute(update(WORKERS).where(known).values(**values)).rowcount:
                conn.execute(insert(WORKERS).values(worker_id=worker.worker_id, **values))

        await self._db.write(run)

    async def workers(self, since: datetime) -> list[KnownWorker]:
        """See `Store.workers`."""
        query = select(WORKERS).where(WORKERS.c.last_seen_us >= to_us(since)).order_by(WORKERS.c.worker_id)

        def run(conn: Connection) -> list[KnownWorker]:
            return [
                KnownWorker(
                    worker_id=row.worker_id,
                    capabilities=row.capabilities,
                    slot_count=row.slot_count,
                    last_seen=from_us(row.last_seen_us),
                )
                for row in conn.execute(query)
            ]

        return await self._db.read(run)
