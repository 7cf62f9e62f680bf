"""Jobs that are paused, preferred, retried and predicted; workers in quarantine; what work costs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, and the table of costs."""
    jobs: tuple[sa.Column[Any], ...] = (
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("urgency", sa.Integer, nullable=False, server_default="0"),
        sa.Column("run", sa.Integer, nullable=False, server_default="0"),
        sa.Column("swept", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("predicted_playable_us", sa.BigInteger),
        sa.Column("predicted_end_us", sa.BigInteger),
    )
    for column in jobs:
        op.add_column("jobs", column)
    workers: tuple[sa.Column[Any], ...] = (
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failed_task", sa.String(160), nullable=False, server_default=""),
        sa.Column("quarantine_us", sa.BigInteger, nullable=False, server_default="0"),
    )
    for column in workers:
        op.add_column("workers", column)
    op.create_table(
        "costs",
        sa.Column("need", sa.String(32), primary_key=True),
        sa.Column("us_per_frame", sa.Float, nullable=False),
    )
