"""What the transactions of `store_sql` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, Update, and_, bindparam, insert, select, update

from services.runtime.errors import NotFound
from services.scheduler.model import (
    LEASE,
    Failure,
    Job,
    JobNotFound,
    JobState,
    Lease,
    NewTask,
    Task,
    TaskState,
)
from services.scheduler.schema import (
    ATTEMPTS,
    JOBS,
    LIGHT,
    TASKS,
    failure_text,
    job_of,
    task_of,
    to_us,
)
from services.scheduler.store import RANKS, Ended

#: States of a task that has not ended.
OPEN = tuple(state.value for state in TaskState if not state.ended)
#: Engines take no more than some thousands in one statement.
_PARAMETERS = 500

# Built once: building them anew was half of what giving out a task and taking its result cost.
# The names of parameters differ from the columns', which an UPDATE keeps for its values.
_IS_TASK = and_(TASKS.c.job_id == bindparam("of_job"), TASKS.c.task_id == bindparam("of_task"))
_READ_TASK = select(TASKS).where(_IS_TASK)
_IS_JOB = JOBS.c.job_id == bindparam("of_job")
_READ_JOB = select(JOBS).where(_IS_JOB)
_IS_ATTEMPT = and_(
    ATTEMPTS.c.job_id == bindparam("of_job"),
    ATTEMPTS.c.task_id == bindparam("of_task"),
    ATTEMPTS.c.fence == bindparam("of_fence"),
)
_NEW_ATTEMPT = insert(ATTEMPTS)
_CONDITIONS = {JOBS.name: _IS_JOB, TASKS.name: _IS_TASK, ATTEMPTS.name: _IS_ATTEMPT}


@cache
def _change(table: Table, *columns: str) -> Update:
    """Sets these columns of one row."""
    return (
        update(table).where(_CONDITIONS[table.name]).values({column: bindparam(column) for column in columns})
    )


def is_task(job_id: str, task_id: str) -> Any:
    """The condition that picks one task."""
    return and_(TASKS.c.job_id == job_id, TASKS.c.task_id == task_id)


def read_job(conn: Connection, job_id: str) -> Job:
    """A job. Raises `JobNotFound`."""
    row = conn.execute(_READ_JOB, {"of_job": job_id}).first()
    if row is None:
        raise JobNotFound(f"jobs/{job_id}")
    return job_of(row)


def read_task(conn: Connection, job_id: str, task_id: str) -> Task:
    """A task. Raises `NotFound`."""
    row = conn.execute(_READ_TASK, {"of_job": job_id, "of_task": task_id}).first()
    if row is None:
        raise NotFound(f"jobs/{job_id}/tasks/{task_id}")
    return task_of(row)


def set_job(conn: Connection, job_id: str, **values: Any) -> None:
    """Change columns of a job."""
    conn.execute(_change(JOBS, *values), {**values, "of_job": job_id})


def set_task(conn: Connection, job_id: str, task_id: str, state: TaskState, **values: Any) -> None:
    """Change the state of a task, and other columns."""
    values |= {"state": state.value, "rank": RANKS[state]}
    conn.execute(_change(TASKS, *values), {**values, "of_job": job_id, "of_task": task_id})


def known_tasks(conn: Connection, job_id: str, task_ids: Sequence[str]) -> set[str]:
    """Those of these tasks that are there."""
    known: set[str] = set()
    for first in range(0, len(task_ids), _PARAMETERS):
        some = TASKS.c.task_id.in_(task_ids[first : first + _PARAMETERS])
        known |= set(conn.execute(select(TASKS.c.task_id).where(TASKS.c.job_id == job_id, some)).scalars())
    return known


def insert_tasks(conn: Connection, job_id: str, tasks: Sequence[NewTask]) -> None:
    """Add those tasks that aren't there yet."""
    known = known_tasks(conn, job_id, [task.task_id for task in tasks])
    rows = [
        {
            **asdict(task),
            "job_id": job_id,
            "kind": task.kind.value,
            "state": TaskState.WAITING.value,
            "rank": RANKS[TaskState.WAITING],
            "fence": 0,
            "attempt": 0,
            "failures": 0,
            "losses": 0,
            "worker": "",
            "not_before_us": 0,
            "expire_us": 0,
            "progress": 0.0,
            "result": b"",
        }
        for task in tasks
        if task.task_id not in known
    ]
    if rows:
        conn.execute(insert(TASKS), rows)


def take_lease(conn: Connection, task: Task, worker: str, now: datetime) -> Task:
    """Give a task to a worker, with the next fence."""
    fence, attempt, expire = task.fence + 1, task.attempt + 1, now + LEASE
    set_task(
        conn, task.job_id, task.task_id, TaskState.RUNNING, fence=fence, attempt=attempt, worker=worker,
        expire_us=to_us(expire), progress=0.0,
    )  # fmt: skip
    new = {
        "job_id": task.job_id,
        "task_id": task.task_id,
        "fence": fence,
        "attempt": attempt,
        "worker": worker,
        "start_time_us": to_us(now),
        "command": "",
        "stderr_lines": "[]",
        "progress": 0.0,
    }
    conn.execute(_NEW_ATTEMPT, new)
    return replace(task, state=TaskState.RUNNING, fence=fence, attempt=attempt, worker=worker, expire=expire)


def held_task(conn: Connection, lease: Lease) -> Task | None:
    """The task, if the lease still holds."""
    row = conn.execute(_READ_TASK, {"of_job": lease.job_id, "of_task": lease.task_id}).first()
    if row is None:
        return None
    task = task_of(row)
    holds = task.state is TaskState.RUNNING and task.fence == lease.fence and task.worker == lease.worker
    return task if holds else None


def end_attempt(conn: Connection, lease: Lease, now: datetime, **values: Any) -> None:
    """Note how an attempt ended."""
    values["end_time_us"] = to_us(now)
    which = {"of_job": lease.job_id, "of_task": lease.task_id, "of_fence": lease.fence}
    conn.execute(_change(ATTEMPTS, *values), {**values, **which})


def finish_job(
    conn: Connection, job_id: str, state: JobState, failure: Failure | None, now: datetime
) -> Ended:
    """End a job, and with it what of it hasn't ended."""
    if read_job(conn, job_id).state.ended:
        return Ended(changed=False)
    set_job(conn, job_id, state=state.value, failure=failure_text(failure), end_time_us=to_us(now))
    live = and_(TASKS.c.job_id == job_id, TASKS.c.state.in_(OPEN))
    running = conn.execute(select(*LIGHT).where(live, TASKS.c.state == TaskState.RUNNING.value)).all()
    stopped = tuple(task_of(row).lease for row in running)
    for lease in stopped:
        end_attempt(conn, lease, now)
    canceled = TaskState.CANCELED
    conn.execute(update(TASKS).where(live).values(state=canceled.value, rank=RANKS[canceled]))
    return Ended(changed=True, stopped=stopped, job_ended=True)
