"""Leases and streams that several schedulers see."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add when leases end, how far tasks are, and at which stream a worker is."""
    op.add_column("tasks", sa.Column("expire_us", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("progress", sa.Float, nullable=False, server_default="0"))
    op.create_index("tasks_by_expiry", "tasks", ["state", "expire_us"])
    op.add_column("workers", sa.Column("session", sa.String(63), nullable=False, server_default=""))
