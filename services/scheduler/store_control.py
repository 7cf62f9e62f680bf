"""Jobs as people steer them, and what is known of costs, in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from services.runtime.sql import Database
from services.scheduler.model import (
    Failure,
    Job,
    JobEnded,
    JobEnding,
    JobState,
    Task,
    TaskState,
    Tier,
    Urgency,
    Work,
    learned,
    priority,
)
from services.scheduler.schema import ATTEMPTS, COSTS, JOBS, LIGHT, TASKS, failure_of, task_of, to_us
from services.scheduler.statements import OPEN, read_job, set_job
from services.scheduler.store import RANKS

_GIVEN_UP = (TaskState.FAILED.value, TaskState.CANCELED.value)


class SqlControl:
    """Another part of `services.scheduler.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def pause_job(self, job_id: str, *, paused: bool) -> Job:
        """See `Store.pause_job`."""
        return await self._steer(job_id, paused=paused)

    async def prioritize_job(self, job_id: str, urgency: Urgency) -> Job:
        """See `Store.prioritize_job`."""
        return await self._steer(job_id, urgency=int(urgency))

    async def _steer(self, job_id: str, **values: Any) -> Job:
        def run(conn: Connection) -> Job:
            if read_job(conn, job_id).state.ended:
                raise JobEnded(f"jobs/{job_id}")
            set_job(conn, job_id, **values)
            return read_job(conn, job_id)

        return await self._db.write(run)

    async def retry_job(self, job_id: str) -> Job:
        """See `Store.retry_job`."""
        given_up = and_(TASKS.c.job_id == job_id, TASKS.c.state.in_(_GIVEN_UP))
        waiting = {"state": TaskState.WAITING.value, "rank": RANKS[TaskState.WAITING]}

        def run(conn: Connection) -> Job:
            job = read_job(conn, job_id)
            if job.state not in (JobState.FAILED, JobState.CANCELED):
                return job
            row = conn.execute(select(JOBS.c.closed, JOBS.c.run).where(JOBS.c.job_id == job_id)).one()
            if not row.closed:
                raise JobEnding(job.name)
            fresh = {"failures": 0, "losses": 0, "not_before_us": 0}
            conn.execute(update(TASKS).where(given_up).values(**waiting, **fresh))
            set_job(
                conn, job_id, state=JobState.PENDING.value, failure=None, end_time_us=None, closed=False,
                paused=False, swept=False, run=row.run + 1,
            )  # fmt: skip
            return read_job(conn, job_id)

        return await self._db.write(run)

    async def given_up(self, job_id: str) -> list[tuple[Task, Failure]]:
        """See `Store.given_up`."""
        query = (
            select(*LIGHT, ATTEMPTS.c.failure)
            .join(
                ATTEMPTS,
                and_(
                    ATTEMPTS.c.job_id == TASKS.c.job_id,
                    ATTEMPTS.c.task_id == TASKS.c.task_id,
                    ATTEMPTS.c.fence == TASKS.c.fence,
                ),
            )
            .where(TASKS.c.job_id == job_id, TASKS.c.rank == RANKS[TaskState.FAILED])
            .order_by(TASKS.c.priority, TASKS.c.task_id)
        )

        def run(conn: Connection) -> list[tuple[Task, Failure]]:
            rows = [(task_of(row), failure_of(row.failure)) for row in conn.execute(query)]
            return [
                (task, failure) for task, failure in rows if failure is not None and not task.kind.dispensable
            ]

        return await self._db.read(run)

    async def open_work(self, job_id: str) -> list[Work]:
        """See `Store.open_work`."""
        opening = TASKS.c.priority < priority(Tier.ANALYZE)
        query = (
            select(TASKS.c.need, opening.label("opening"), func.sum(TASKS.c.frames).label("frames"))
            .where(TASKS.c.job_id == job_id, TASKS.c.state.in_(OPEN))
            .group_by(TASKS.c.need, opening)
        )

        def run(conn: Connection) -> list[Work]:
            rows = conn.execute(query)
            return [Work(need=r.need, opening=bool(r.opening), frames=int(r.frames)) for r in rows]

        return await self._db.read(run)

    async def predict(self, job_id: str, playable: datetime, end: datetime) -> None:
        """See `Store.predict`."""
        statement = (
            update(JOBS)
            .where(JOBS.c.job_id == job_id, JOBS.c.predicted_end_us.is_(None))
            .values(predicted_playable_us=to_us(playable), predicted_end_us=to_us(end))
        )
        await self._db.write(lambda conn: conn.execute(statement))

    async def costs(self) -> dict[str, float]:
        """See `Store.costs`."""
        return await self._db.read(_costs)

    async def learn(self, measured: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """See `Store.learn`."""

        def run(conn: Connection) -> dict[str, float]:
            known = _costs(conn)
            for need, values in sorted(measured.items()):
                cost = known.get(need)
                for value in values:
                    cost = learned(cost, value)
                if need in known:
                    conn.execute(update(COSTS).where(COSTS.c.need == need).values(us_per_frame=cost))
                else:
                    conn.execute(insert(COSTS).values(need=need, us_per_frame=cost))
            return _costs(conn)

        return await self._db.write(run)

    async def unswept_jobs(self, before: datetime) -> list[str]:
        """See `Store.unswept_jobs`."""
        query = select(JOBS.c.job_id).where(JOBS.c.closed, ~JOBS.c.swept, JOBS.c.end_time_us < to_us(before))
        return await self._db.read(lambda conn: list(conn.execute(query).scalars()))

    async def swept(self, job_id: str) -> None:
        """See `Store.swept`."""
        await self._db.write(lambda conn: set_job(conn, job_id, swept=True))


def _costs(conn: Connection) -> dict[str, float]:
    return {row.need: row.us_per_frame for row in conn.execute(select(COSTS))}
