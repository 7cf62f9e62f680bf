"""Leases and the request ids that made them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.runtime import idempotency

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables; times are microseconds since 1970."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("user_name", sa.String(80), nullable=False),
        sa.Column("profile", sa.String(160), nullable=False),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("title_duration_ns", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger),
    )
    op.create_index("leases_of_user", "leases", ["user_name", "expire_time"])
    op.create_index("leases_by_expiry", "leases", ["expire_time"])
    idempotency.create_table(op)
