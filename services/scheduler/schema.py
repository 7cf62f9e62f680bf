"""The scheduler's tables, as the migrations leave them, and rows to and from the domain."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.runtime.errors import Code
from services.scheduler.model import (
    Attempt,
    Chunk,
    Failure,
    Job,
    JobState,
    Task,
    TaskKind,
    TaskState,
    Urgency,
)
from services.scheduler.store import KnownWorker

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_META = sa.MetaData()


def _table(name: str, *columns: str, **types: Any) -> sa.Table:
    return sa.Table(name, _META, *(sa.Column(column, types.get(column, sa.Text)) for column in columns))


_BLOB: Any = sa.LargeBinary
_INT: Any = sa.BigInteger
JOBS = _table(
    "jobs", "job_id", "title", "owner", "source", "given", "state", "failure", "create_time_us",
    "playable_time_us", "end_time_us", "probe", "ladder", "highlights", "frame_count", "served", "closed",
    "paused", "urgency", "run", "swept", "predicted_playable_us", "predicted_end_us",
    source=_BLOB, given=_BLOB, probe=_BLOB, ladder=_BLOB, highlights=_BLOB, create_time_us=_INT,
    playable_time_us=_INT, end_time_us=_INT, frame_count=_INT, served=_INT, closed=sa.Boolean,
    paused=sa.Boolean, urgency=_INT, run=_INT, swept=sa.Boolean, predicted_playable_us=_INT,
    predicted_end_us=_INT,
)  # fmt: skip
TASKS = _table(
    "tasks", "job_id", "task_id", "kind", "need", "priority", "frames", "chunk", "summary", "state", "rank",
    "fence", "attempt", "failures", "losses", "worker", "not_before_us", "expire_us", "progress", "spec",
    "result",
    priority=_INT, frames=_INT, chunk=_INT, rank=_INT, fence=_INT, attempt=_INT, failures=_INT, losses=_INT,
    not_before_us=_INT, expire_us=_INT, progress=sa.Float, spec=_BLOB, result=_BLOB,
)  # fmt: skip
ATTEMPTS = _table(
    "attempts", "job_id", "task_id", "fence", "attempt", "worker", "start_time_us", "end_time_us", "command",
    "stderr_lines", "failure", "progress",
    fence=_INT, attempt=_INT, start_time_us=_INT, end_time_us=_INT, progress=sa.Float,
)  # fmt: skip
CHUNKS = _table(
    "chunks", "job_id", "number", "start_frame", "frame_count", "start_ticks", "duration_ticks",
    number=_INT, start_frame=_INT, frame_count=_INT, start_ticks=_INT, duration_ticks=_INT,
)  # fmt: skip
SEGMENTS = _table("segments", "job_id", "rendition_id", "number", "object_key", number=_INT)
WORKERS = _table(
    "workers", "worker_id", "capabilities", "slot_count", "last_seen_us", "session", "failures",
    "failed_task", "quarantine_us", "quarantine_reason",
    capabilities=_BLOB, slot_count=_INT, last_seen_us=_INT, failures=_INT, quarantine_us=_INT,
)  # fmt: skip
COSTS = _table("costs", "need", "us_per_frame", us_per_frame=sa.Float)
#: The columns of a task without the two large ones.
LIGHT = [column for column in TASKS.c if column.name not in ("spec", "result")]


def to_us(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(value: int) -> datetime:
    """The moment so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _optional(value: int | None) -> datetime | None:
    return None if value is None else from_us(value)


def failure_text(failure: Failure | None) -> str | None:
    """A failure as JSON."""
    if failure is None:
        return None
    return json.dumps([failure.code.name, failure.reason, failure.message, failure.metadata])


def failure_of(text: str | None) -> Failure | None:
    """The failure of its JSON."""
    if text is None:
        return None
    code, reason, message, metadata = json.loads(text)
    return Failure(code=Code[code], reason=reason, message=message, metadata=metadata)


def job_of(row: Any) -> Job:
    """A job of its row."""
    return Job(
        job_id=row.job_id,
        title=row.title,
        owner=row.owner,
        source=row.source,
        given=row.given,
        state=JobState(row.state),
        failure=failure_of(row.failure),
        create_time=from_us(row.create_time_us),
        playable_time=_optional(row.playable_time_us),
        end_time=_optional(row.end_time_us),
        probe=row.probe,
        ladder=row.ladder,
        highlights=row.highlights,
        frame_count=row.frame_count,
        paused=row.paused,
        urgency=Urgency(row.urgency),
        predicted_playable=_optional(row.predicted_playable_us),
        predicted_end=_optional(row.predicted_end_us),
    )


def task_of(row: Any) -> Task:
    """A task of its row; of a light row without spec and result."""
    return Task(
        job_id=row.job_id,
        task_id=row.task_id,
        kind=TaskKind(row.kind),
        need=row.need,
        priority=row.priority,
        frames=row.frames,
        chunk=row.chunk,
        summary=row.summary,
        state=TaskState(row.state),
        fence=row.fence,
        attempt=row.attempt,
        failures=row.failures,
        losses=row.losses,
        worker=row.worker,
        not_before=from_us(row.not_before_us) if row.not_before_us else None,
        expire=from_us(row.expire_us),
        progress=row.progress,
        spec=getattr(row, "spec", b""),
        result=getattr(row, "result", b""),
    )


def attempt_of(row: Any) -> Attempt:
    """An attempt of its row."""
    return Attempt(
        fence=row.fence,
        attempt=row.attempt,
        worker=row.worker,
        start_time=from_us(row.start_time_us),
        end_time=_optional(row.end_time_us),
        command=row.command,
        stderr_lines=tuple(json.loads(row.stderr_lines)),
        failure=failure_of(row.failure),
        progress=row.progress,
    )


def worker_of(row: Any) -> KnownWorker:
    """A worker of its row."""
    return KnownWorker(
        worker_id=row.worker_id,
        capabilities=row.capabilities,
        slot_count=row.slot_count,
        last_seen=from_us(row.last_seen_us),
        session=row.session,
        quarantine_end=from_us(row.quarantine_us),
        quarantine_reason=row.quarantine_reason,
    )


def chunk_of(row: Any) -> Chunk:
    """A chunk of its row."""
    return Chunk(
        number=row.number,
        start_frame=row.start_frame,
        frame_count=row.frame_count,
        start_ticks=row.start_ticks,
        duration_ticks=row.duration_ticks,
    )
