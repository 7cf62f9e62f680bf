"""Series, seasons and episodes; rights and publication of titles; watchlists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("titles", sa.Column("unpublished", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("titles", sa.Column("rights", sa.Text, nullable=False, server_default="[]"))
    _series()
    op.create_table(
        "watchlist",
        sa.Column("profile", sa.String(255), primary_key=True),
        sa.Column("subject", sa.String(80), primary_key=True),
        sa.Column("add_us", sa.BigInteger, nullable=False),
    )
    op.create_index("watchlist_by_age", "watchlist", ["profile", "add_us", "subject"])
    op.create_index("watchlist_by_subject", "watchlist", ["subject"])


def _series() -> None:
    op.create_table(
        "series",
        sa.Column("series_id", sa.String(63), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("release_year", sa.Integer, nullable=False),
        sa.Column("genres", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("create_us", sa.BigInteger, nullable=False),
        sa.Column("update_us", sa.BigInteger, nullable=False),
    )
    op.create_index("series_by_age", "series", ["create_us", "series_id"])
    op.create_table(
        "seasons",
        sa.Column("season_id", sa.String(63), primary_key=True),
        sa.Column("series_id", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("create_us", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("series_id", "number"),
    )
    op.create_table(
        "episodes",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("season_id", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.UniqueConstraint("season_id", "number"),
    )
