"""Uploads, and the answers to repeated requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.runtime.idempotency import create_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.String(63), primary_key=True),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("received_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("rejection", sa.Text),
        sa.Column("highlights", sa.LargeBinary, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("expire_time_us", sa.BigInteger, nullable=False),
    )
    op.create_index("uploads_by_owner", "uploads", ["owner", "upload_id"])
    op.create_index("uploads_by_state", "uploads", ["state", "expire_time_us"])
    create_table(op)
