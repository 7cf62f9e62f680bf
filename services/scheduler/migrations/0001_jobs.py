"""Jobs, tasks, attempts, chunks, published segments and workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("source", sa.LargeBinary, nullable=False),
        sa.Column("given", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("failure", sa.Text),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("playable_time_us", sa.BigInteger),
        sa.Column("end_time_us", sa.BigInteger),
        sa.Column("probe", sa.LargeBinary, nullable=False),
        sa.Column("ladder", sa.LargeBinary, nullable=False),
        sa.Column("highlights", sa.LargeBinary, nullable=False),
        sa.Column("frame_count", sa.BigInteger, nullable=False),
        sa.Column("served", sa.BigInteger, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "create_time_us", "job_id"])
    op.create_index("jobs_by_time", "jobs", ["create_time_us", "job_id"])
    op.create_index("jobs_open", "jobs", ["closed"])
    op.create_table(
        "tasks",
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), primary_key=True),
        sa.Column("task_id", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("need", sa.String(32), nullable=False),
        sa.Column("priority", sa.BigInteger, nullable=False),
        sa.Column("frames", sa.BigInteger, nullable=False),
        sa.Column("chunk", sa.Integer, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(63), nullable=False),
        sa.Column("not_before_us", sa.BigInteger, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.LargeBinary, nullable=False),
    )
    op.create_index("tasks_by_need", "tasks", ["state", "need", "job_id", "priority"])
    op.create_index("tasks_by_rank", "tasks", ["job_id", "rank", "priority", "task_id"])
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("task_id", sa.String(63), primary_key=True),
        sa.Column("fence", sa.BigInteger, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(63), nullable=False),
        sa.Column("start_time_us", sa.BigInteger, nullable=False),
        sa.Column("end_time_us", sa.BigInteger),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("stderr_lines", sa.Text, nullable=False),
        sa.Column("failure", sa.Text),
        sa.Column("progress", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["job_id", "task_id"], ["tasks.job_id", "tasks.task_id"]),
    )
    op.create_table(
        "chunks",
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("start_frame", sa.BigInteger, nullable=False),
        sa.Column("frame_count", sa.Integer, nullable=False),
        sa.Column("start_ticks", sa.BigInteger, nullable=False),
        sa.Column("duration_ticks", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "segments",
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), primary_key=True),
        sa.Column("rendition_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("object_key", sa.Text, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.String(63), primary_key=True),
        sa.Column("capabilities", sa.LargeBinary, nullable=False),
        sa.Column("slot_count", sa.Integer, nullable=False),
        sa.Column("last_seen_us", sa.BigInteger, nullable=False),
    )
