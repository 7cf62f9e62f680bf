"""Who works on what, in SQL: workers, their leases, and how attempts end."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from sqlalchemy import Connection, Select, and_, bindparam, func, insert, literal_column, or_, select, update

from services.runtime.sql import Database
from services.scheduler.model import (
    ELSEWHERE,
    LEASE,
    MAX_FAILURES,
    MAX_GIVEN_UP,
    MAX_LOSSES,
    MAX_WORKER_FAILURES,
    QUARANTINE,
    Attempt,
    Blame,
    Candidate,
    Failure,
    JobState,
    Lease,
    Task,
    TaskState,
    Urgency,
    WorkerNotFound,
    blame_of,
    end_by,
    in_words,
    retry_delay,
)
from services.scheduler.schema import (
    JOBS,
    LIGHT,
    TASKS,
    WORKERS,
    failure_text,
    from_us,
    task_of,
    to_us,
    worker_of,
)
from services.scheduler.statements import (
    end_attempt,
    finish_job,
    held_task,
    read_task,
    set_job,
    set_task,
    take_lease,
)
from services.scheduler.store import RANKS, Ended, Heard, KnownWorker, Missed

_LIVE = (JobState.PENDING.value, JobState.RUNNING.value)
_RUNNING = TASKS.c.state == TaskState.RUNNING.value
_WAITING = TASKS.c.state == TaskState.WAITING.value


class SqlLeases:
    """Half of `services.scheduler.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def hello(
        self, worker: KnownWorker, named: Collection[Lease], now: datetime
    ) -> tuple[list[Task], list[Task]]:
        """See `Store.hello`."""
        values = {
            "capabilities": worker.capabilities,
            "slot_count": worker.slot_count,
            "last_seen_us": to_us(worker.last_seen),
            "session": worker.session,
        }

        def run(conn: Connection) -> tuple[list[Task], list[Task]]:
            known = WORKERS.c.worker_id == worker.worker_id
            if not conn.execute(update(WORKERS).where(known).values(**values)).rowcount:
                conn.execute(insert(WORKERS).values(worker_id=worker.worker_id, **values))
            held = _tasks(conn, _RUNNING, TASKS.c.worker == worker.worker_id)
            kept = [task for task in held if task.lease in named]
            for task in kept:
                set_task(conn, task.job_id, task.task_id, TaskState.RUNNING, expire_us=to_us(now + LEASE))
            return kept, [task for task in held if task.lease not in named]

        return await self._db.write(run)

    async def goodbye(self, worker_id: str, session: str, now: datetime) -> None:
        """See `Store.goodbye`."""
        statement = (
            update(WORKERS)
            .where(WORKERS.c.worker_id == worker_id, WORKERS.c.session == session)
            .values(session="", last_seen_us=to_us(now))
        )
        await self._db.write(lambda conn: conn.execute(statement))

    async def renew(self, workers: Sequence[KnownWorker], heard: Sequence[Heard], now: datetime) -> Missed:
        """See `Store.renew`."""
        ids = [worker.worker_id for worker in workers]

        def run(conn: Connection) -> Missed:
            streams = conn.execute(
                select(WORKERS.c.worker_id, WORKERS.c.session).where(WORKERS.c.worker_id.in_(ids))
            )
            current = {row.worker_id: row.session for row in streams}
            here = [worker for worker in workers if current.get(worker.worker_id) == worker.session]
            _each(conn, _SEE_WORKER, [{"w": w.worker_id, "seen": to_us(w.last_seen)} for w in here])
            # What a worker says at another stream counts, not what was heard before at this one.
            theirs = [each for each in heard if each.lease.worker in {worker.worker_id for worker in here}]
            holding = {task.lease for task in _tasks(conn, _RUNNING, TASKS.c.worker.in_(ids))}
            _each(conn, _RENEW_LEASE, [_renewal(each) for each in theirs if each.lease in holding])
            return Missed(
                leases=frozenset(each.lease for each in theirs) - holding,
                sessions=frozenset(worker.session for worker in workers if worker not in here),
            )

        return await self._db.write(run)

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
        """See `Store.assign`."""
        ready = {"now": to_us(now), "worker_": worker, "lately": to_us(now - ELSEWHERE)}

        def run(conn: Connection) -> Task | None:
            if not _may_work(conn, worker, session, now):
                return None
            candidates = _candidates(conn, sorted(needs), ready, most_per_owner)
            if not candidates:
                return None
            chosen = pick(candidates)
            [priority] = [c.priority for c in candidates if c.job_id == chosen.job_id]
            first = {"needs": sorted(needs), "of_job": chosen.job_id, "best": priority}
            row = conn.execute(_FIRST, {**ready, **first}).one()
            set_job(conn, chosen.job_id, served=chosen.served + max(row.frames, 1))
            return take_lease(conn, task_of(row), worker, now)

        return await self._db.write(run)

    async def expired(self, now: datetime) -> list[Task]:
        """See `Store.expired`."""
        return await self._db.read(lambda conn: _tasks(conn, _RUNNING, TASKS.c.expire_us <= to_us(now)))

    async def running(self, job_id: str) -> list[Task]:
        """See `Store.running`."""
        of_job = TASKS.c.job_id == job_id, TASKS.c.rank == RANKS[TaskState.RUNNING]
        return await self._db.read(lambda conn: _tasks(conn, _RUNNING, *of_job))

    async def in_state(self, state: TaskState) -> list[Task]:
        """See `Store.in_state`."""
        return await self._db.read(lambda conn: _tasks(conn, TASKS.c.state == state.value))

    async def take_publications(self, now: datetime, *, all_: bool = False) -> list[Lease]:
        """See `Store.take_publications`."""
        left = TASKS.c.state == TaskState.PUBLISHING.value
        if not all_:
            left = and_(left, TASKS.c.expire_us <= to_us(now))

        def run(conn: Connection) -> list[Lease]:
            leases = [task.lease for task in _tasks(conn, left)]
            if leases:
                conn.execute(update(TASKS).where(left).values(expire_us=to_us(now + LEASE)))
            return leases

        # Mostly there is none, and a look costs less than a write.
        if not await self._db.read(lambda conn: conn.execute(select(TASKS.c.job_id).where(left)).first()):
            return []
        return await self._db.write(run)

    async def served(self) -> list[int]:
        """See `Store.served`."""
        query = select(JOBS.c.served).where(JOBS.c.state.in_(_LIVE))
        return await self._db.read(lambda conn: list(conn.execute(query).scalars()))

    async def next_retry(self) -> datetime | None:
        """See `Store.next_retry`."""
        # In words that the index has: of a parameter the engine can't tell that the index serves.
        retried = TASKS.c.not_before_us > literal_column("0")
        query = select(func.min(TASKS.c.not_before_us)).where(_WAITING, retried)
        value = await self._db.read(lambda conn: conn.execute(query).scalar())
        return None if value is None else from_us(value)

    async def complete(
        self, lease: Lease, state: TaskState, result: bytes, command: str, now: datetime
    ) -> bool:
        """See `Store.complete`."""

        def run(conn: Connection) -> bool:
            if held_task(conn, lease) is None:
                return False
            until = to_us(now + LEASE)
            set_task(conn, lease.job_id, lease.task_id, state, result=result, expire_us=until)
            end_attempt(conn, lease, now, command=command, progress=1.0)
            conn.execute(_WELL, {"w": lease.worker})
            return True

        return await self._db.write(run)

    async def settle(self, job_id: str, task_id: str) -> None:
        """See `Store.settle`."""

        def run(conn: Connection) -> None:
            if read_task(conn, job_id, task_id).state is TaskState.PUBLISHING:
                set_task(conn, job_id, task_id, TaskState.SUCCEEDED)

        await self._db.write(run)

    async def fail(self, lease: Lease, attempt: Attempt, now: datetime, *, expired: bool = False) -> Ended:
        """See `Store.fail`."""

        def run(conn: Connection) -> Ended:
            task = held_task(conn, lease)
            if task is None or attempt.failure is None or (expired and task.expire > now):
                return Ended(changed=False)
            end_attempt(
                conn, lease, now, command=attempt.command, progress=attempt.progress,
                stderr_lines=json.dumps(attempt.stderr_lines), failure=failure_text(attempt.failure),
            )  # fmt: skip
            blame = blame_of(attempt.failure)
            failures = task.failures + (blame in (Blame.TASK, Blame.SOURCE))
            losses = task.losses + (blame is Blame.WORKER)
            if blame is Blame.TASK:
                _note_failure(conn, lease, now)
            if blame is Blame.SOURCE or failures >= MAX_FAILURES or losses >= MAX_LOSSES:
                set_task(conn, task.job_id, task.task_id, TaskState.FAILED, failures=failures, losses=losses)
                if not task.kind.leads_on and _failed_tasks(conn, task.job_id) < MAX_GIVEN_UP:
                    return Ended(changed=True)
                told = in_words(task, attempt.failure, task.attempt)
                return replace(finish_job(conn, task.job_id, JobState.FAILED, told, now), changed=True)
            # An attempt that is on neither account met a full origin, as this one may have.
            before = {Blame.TASK: task.failures, Blame.WORKER: task.losses}
            full = task.attempt - 1 - task.failures - task.losses
            retry_at = now + retry_delay(blame, before.get(blame, full))
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
            return finish_job(conn, job_id, *end_by(in_words(task, failure, task.attempt)), now)

        return await self._db.write(run)

    async def workers(self, since: datetime) -> list[KnownWorker]:
        """See `Store.workers`."""
        listed = or_(WORKERS.c.last_seen_us >= to_us(since), WORKERS.c.quarantine_reason != "")
        query = select(WORKERS).where(listed).order_by(WORKERS.c.worker_id)
        return await self._db.read(lambda conn: [worker_of(row) for row in conn.execute(query)])

    async def quarantine_worker(self, worker_id: str, reason: str) -> tuple[KnownWorker, list[Task]]:
        """See `Store.quarantine_worker`."""

        def run(conn: Connection) -> tuple[KnownWorker, list[Task]]:
            worker = _worker(conn, worker_id) or _unknown(worker_id)
            if not worker.quarantine_reason:
                worker = _set_worker(conn, worker, quarantine_reason=reason)
            return worker, _tasks(conn, _RUNNING, TASKS.c.worker == worker_id)

        return await self._db.write(run)

    async def readmit_worker(self, worker_id: str) -> KnownWorker:
        """See `Store.readmit_worker`."""

        def run(conn: Connection) -> KnownWorker:
            worker = _worker(conn, worker_id) or _unknown(worker_id)
            return _set_worker(conn, worker, quarantine_reason="", quarantine_us=0, failures=0)

        return await self._db.write(run)


def _worker(conn: Connection, worker_id: str) -> KnownWorker | None:
    row = conn.execute(_READ_WORKER, {"w": worker_id}).first()
    return None if row is None else worker_of(row)


def _unknown(worker_id: str) -> NoReturn:
    raise WorkerNotFound(f"workers/{worker_id}")


def _set_worker(conn: Connection, worker: KnownWorker, **values: Any) -> KnownWorker:
    conn.execute(update(WORKERS).where(WORKERS.c.worker_id == worker.worker_id).values(**values))
    return _worker(conn, worker.worker_id) or worker


def _may_work(conn: Connection, worker_id: str, session: str, now: datetime) -> bool:
    worker = _worker(conn, worker_id)
    return worker is not None and worker.session == session and worker.may_work(now)


def _note_failure(conn: Connection, lease: Lease, now: datetime) -> None:
    """Count the failures of a worker; one task that fails again and again is no sign against it."""
    known = WORKERS.c.worker_id == lease.worker
    row = conn.execute(select(WORKERS.c.failures, WORKERS.c.failed_task).where(known)).first()
    if row is None or row.failed_task == lease.task:
        return
    values: dict[str, Any] = {"failures": row.failures + 1, "failed_task": lease.task}
    if row.failures + 1 >= MAX_WORKER_FAILURES:
        values |= {"failures": 0, "quarantine_us": to_us(now + QUARANTINE)}
    conn.execute(update(WORKERS).where(known).values(**values))


def _failed_tasks(conn: Connection, job_id: str) -> int:
    failed = TASKS.c.rank == RANKS[TaskState.FAILED]
    return int(conn.execute(select(func.count()).where(TASKS.c.job_id == job_id, failed)).scalar_one())


# Built once, as those of `statements`.
_READ_WORKER = select(WORKERS).where(WORKERS.c.worker_id == bindparam("w"))
_WELL = (
    update(WORKERS).where(WORKERS.c.worker_id == bindparam("w"), WORKERS.c.failures > 0).values(failures=0)
)
_FAILED_HERE = and_(
    TASKS.c.worker == bindparam("worker_"),
    TASKS.c.failures > 0,
    TASKS.c.not_before_us > bindparam("lately"),
)
_READY = and_(_WAITING, TASKS.c.not_before_us <= bindparam("now"), ~_FAILED_HERE)
_FIRST = (
    select(TASKS)
    .where(_READY, TASKS.c.need.in_(bindparam("needs", expanding=True)))
    .where(TASKS.c.job_id == bindparam("of_job"), TASKS.c.priority == bindparam("best"))
    .limit(1)
)
_SEE_WORKER = (
    update(WORKERS).where(WORKERS.c.worker_id == bindparam("w")).values(last_seen_us=bindparam("seen"))
)
_RENEW_LEASE = (
    update(TASKS)
    .where(TASKS.c.job_id == bindparam("j"), TASKS.c.task_id == bindparam("t"))
    .values(expire_us=bindparam("until"), progress=bindparam("share"))
)


def _renewal(heard: Heard) -> dict[str, Any]:
    lease = heard.lease
    return {
        "j": lease.job_id, "t": lease.task_id, "until": to_us(heard.expire), "share": heard.progress,
    }  # fmt: skip


def _each(conn: Connection, statement: Any, parameters: list[dict[str, Any]]) -> None:
    if parameters:
        conn.execute(statement, parameters)


def _tasks(conn: Connection, *conditions: Any) -> list[Task]:
    """Tasks without spec and result, in the order of their names.

    Sorted here: SQLite would rather walk through all tasks in that order than sort a few.
    """
    tasks = [task_of(row) for row in conn.execute(select(*LIGHT).where(*conditions))]
    return sorted(tasks, key=lambda task: (task.job_id, task.task_id))


@cache
def _first_of_each(needs: int) -> Select[Any]:
    """The jobs that go on, with the best priority of a waiting task for each of so many needs.

    One step into an index for each job and need; a minimum over all waiting tasks would cost more the longer
    a film is.
    """
    firsts = [
        select(TASKS.c.priority)
        .where(_READY, TASKS.c.need == bindparam(f"need_{n}"), TASKS.c.job_id == JOBS.c.job_id)
        .order_by(TASKS.c.priority)
        .limit(1)
        .correlate(JOBS)
        .scalar_subquery()
        for n in range(needs)
    ]
    return select(JOBS.c.job_id, JOBS.c.served, JOBS.c.urgency, JOBS.c.owner, *firsts).where(
        JOBS.c.state == JobState.RUNNING.value, ~JOBS.c.paused
    )


def _candidates(
    conn: Connection, needs: Sequence[str], ready: Mapping[str, Any], most_per_owner: int
) -> list[Candidate]:
    """The jobs with a waiting task that needs one of these."""
    values = {**ready, **{f"need_{n}": need for n, need in enumerate(needs)}}
    full = _owners_with(conn, most_per_owner) if most_per_owner else set()
    return [
        Candidate(job_id=row.job_id, served=row.served, priority=min(waiting), urgency=Urgency(row.urgency))
        for row in conn.execute(_first_of_each(len(needs)), values)
        if row.owner not in full and (waiting := [value for value in row[4:] if value is not None])
    ]


def _owners_with(conn: Connection, running: int) -> set[str]:
    """Those whose jobs have so many running tasks."""
    query = (
        select(JOBS.c.owner)
        .join(TASKS, TASKS.c.job_id == JOBS.c.job_id)
        .where(_RUNNING)
        .group_by(JOBS.c.owner)
        .having(func.count() >= running)
    )
    return set(conn.execute(query).scalars())
