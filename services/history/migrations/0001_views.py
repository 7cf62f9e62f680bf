"""Views and deletions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "views",
        sa.Column("profile", sa.String(160), primary_key=True),
        sa.Column("title", sa.String(80), primary_key=True),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("lease", sa.String(80), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("position_ns", sa.BigInteger, nullable=False),
        sa.Column("intervals", sa.LargeBinary, nullable=False),
        sa.Column("duration_ns", sa.BigInteger, nullable=False),
        sa.Column("device", sa.String(255), nullable=False),
        sa.Column("first_watch_us", sa.BigInteger, nullable=False),
        sa.Column("last_watch_us", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.Boolean, nullable=False),
    )
    op.create_index("views_by_last_watch", "views", ["profile", "last_watch_us", "title"])
    op.create_index("views_unfinished", "views", ["profile", "finished", "last_watch_us", "title"])
    op.create_table(
        "deletions",
        sa.Column("profile", sa.String(160), primary_key=True),
        sa.Column("title", sa.String(80), primary_key=True),
        sa.Column("until_us", sa.BigInteger, nullable=False),
    )
