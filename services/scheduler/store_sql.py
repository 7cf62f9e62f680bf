"""The scheduler's state in SQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, and_, func, insert, select, tuple_, update

from services.scheduler.model import (
    REPLACED,
    Attempt,
    Chunk,
    Failure,
    Job,
    JobState,
    NewTask,
    Task,
    TaskKind,
    TaskState,
)
from services.scheduler.schema import (
    ATTEMPTS,
    CHUNKS,
    JOBS,
    LIGHT,
    SEGMENTS,
    TASKS,
    attempt_of,
    chunk_of,
    job_of,
    task_of,
    to_us,
)
from services.scheduler.statements import (
    finish_job,
    insert_tasks,
    is_task,
    read_job,
    read_task,
    set_job,
)
from services.scheduler.store import RANKS, Counts, Ended
from services.scheduler.store_control import SqlControl
from services.scheduler.store_leases import SqlLeases

#: So many are looked through at a time for a sample.
_IDS = 1_000


class SqlStore(SqlControl, SqlLeases):
    """See `services.scheduler.store.Store`."""

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
                    paused=False,
                    urgency=job.urgency,
                    run=0,
                    swept=False,
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

    async def unfinished_jobs(self) -> list[tuple[str, int]]:
        """See `Store.unfinished_jobs`."""
        query = select(JOBS.c.job_id, JOBS.c.run).where(~JOBS.c.closed).order_by(JOBS.c.create_time_us)
        return await self._db.read(lambda conn: [(row.job_id, row.run) for row in conn.execute(query)])

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

    async def end_replaced(self, job: Job, kept: Collection[str], now: datetime) -> dict[str, Ended]:
        """See `Store.end_replaced`."""
        older = JOBS.c.create_time_us <= to_us(job.create_time)
        query = select(JOBS.c.job_id).where(~JOBS.c.closed, JOBS.c.title == job.title, older)

        def run(conn: Connection) -> dict[str, Ended]:
            found = [job_id for job_id in conn.execute(query).scalars() if f"jobs/{job_id}" not in kept]
            return {
                job_id: finish_job(conn, job_id, JobState.CANCELED, REPLACED, now)
                for job_id in found
                if job_id != job.job_id
            }

        return await self._db.write(run)

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
            waiting = and_(TASKS.c.job_id == job_id, TASKS.c.state == TaskState.WAITING.value)
            for row in conn.execute(select(TASKS.c.task_id, TASKS.c.priority).where(waiting)).all():
                value = priorities.get(row.task_id, row.priority)
                if value != row.priority:
                    conn.execute(update(TASKS).where(is_task(job_id, row.task_id)).values(priority=value))
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

    async def done_encodes(
        self, job_id: str, after: str, limit: int, chosen: Callable[[str], bool]
    ) -> list[Task]:
        """See `Store.done_encodes`."""
        encodes = (TaskKind.ENCODE_VIDEO.value, TaskKind.ENCODE_AUDIO.value)
        of_job = TASKS.c.job_id == job_id
        done = and_(of_job, TASKS.c.kind.in_(encodes), TASKS.c.state == TaskState.SUCCEEDED.value)
        ids = select(TASKS.c.task_id).where(done).order_by(TASKS.c.task_id).limit(_IDS)

        def run(conn: Connection) -> list[Task]:
            found: list[str] = []
            some = list(conn.execute(ids.where(TASKS.c.task_id > after)).scalars())
            while some and len(found) < limit:
                found += [task_id for task_id in some if chosen(task_id)][: limit - len(found)]
                some = list(conn.execute(ids.where(TASKS.c.task_id > some[-1])).scalars())
            whole = select(TASKS).where(of_job, TASKS.c.task_id.in_(found)).order_by(TASKS.c.task_id)
            return [task_of(row) for row in conn.execute(whole)]

        return await self._db.read(run)

    async def has_open_tasks(self, job_id: str) -> bool:
        """See `Store.has_open_tasks`."""
        ranks = sorted({RANKS[state] for state in TaskState if not state.ended})
        query = select(TASKS.c.task_id).where(TASKS.c.job_id == job_id, TASKS.c.rank.in_(ranks)).limit(1)
        return await self._db.read(lambda conn: conn.execute(query).first() is not None)

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
                failed=sum(row.n for row in tasks if row.state == TaskState.FAILED.value),
                planned=int(planned.scalar_one()),
                frames=frames,
                published={row.rendition_id: row.n for row in published},
            )

        return await self._db.read(run)

    async def published(
        self, job_id: str, rendition: str, keys: Mapping[int, str], playable: datetime | None
    ) -> None:
        """See `Store.published`."""

        def run(conn: Connection) -> None:
            known = set(
                conn.execute(
                    select(SEGMENTS.c.number).where(
                        SEGMENTS.c.job_id == job_id,
                        SEGMENTS.c.rendition_id == rendition,
                        SEGMENTS.c.number.in_(keys),
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
