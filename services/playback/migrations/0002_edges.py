"""The last report of each edge."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table; times are microseconds since 1970."""
    op.create_table(
        "edges",
        sa.Column("address", sa.String(255), primary_key=True),
        sa.Column("stream_count", sa.Integer, nullable=False),
        sa.Column("stream_capacity", sa.Integer, nullable=False),
        sa.Column("sent_bytes_per_second", sa.BigInteger, nullable=False),
        sa.Column("sent_bytes", sa.BigInteger, nullable=False),
        sa.Column("origin_bytes", sa.BigInteger, nullable=False),
        sa.Column("memory_used_bytes", sa.BigInteger, nullable=False),
        sa.Column("memory_budget_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_used_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_budget_bytes", sa.BigInteger, nullable=False),
        sa.Column("leaving", sa.Boolean, nullable=False),
        sa.Column("report_time", sa.BigInteger, nullable=False),
    )
