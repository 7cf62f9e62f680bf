"""Workers that get no tasks until an operator says so, and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; empty where a worker may work."""
    op.add_column("workers", sa.Column("quarantine_reason", sa.Text, nullable=False, server_default=""))
