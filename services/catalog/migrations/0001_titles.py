"""Titles, media, segments, and what is still to be sent or collected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.runtime import idempotency

revision = "0001"
down_revision = None


def upgrade() -> None:
    _titles()
    _media()
    op.create_table(
        "segments",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("job", sa.String(255), primary_key=True),
        sa.Column("rendition_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("duration_ticks", sa.BigInteger, nullable=False),
        sa.Column("object_key", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("encoded", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sweeps",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("job", sa.String(255), primary_key=True),
        sa.Column("due_us", sa.BigInteger, nullable=False, index=True),
        sa.Column("rounds", sa.Integer, nullable=False),
    )
    idempotency.create_table(op)


def _titles() -> None:
    op.create_table(
        "titles",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("release_year", sa.Integer, nullable=False),
        sa.Column("genres", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("duration_ns", sa.BigInteger),
        sa.Column("error", sa.LargeBinary),
        sa.Column("create_us", sa.BigInteger, nullable=False),
        sa.Column("update_us", sa.BigInteger, nullable=False),
        sa.Column("playable_us", sa.BigInteger),
        sa.Column("complete_us", sa.BigInteger),
        sa.Column("delete_us", sa.BigInteger),
    )
    op.create_index("titles_by_age", "titles", ["create_us", "title_id"])
    op.create_index("titles_by_owner", "titles", ["owner", "create_us", "title_id"])
    op.create_table(
        "outbox",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("change_us", sa.BigInteger, nullable=False, index=True),
    )


def _media() -> None:
    op.create_table(
        "media",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("timescale", sa.Integer, nullable=False),
        sa.Column("duration_ticks", sa.BigInteger, nullable=False),
        sa.Column("segment_count", sa.Integer, nullable=False),
        sa.Column("planned", sa.Boolean, nullable=False),
        sa.Column("opening_count", sa.Integer),
    )
    op.create_table(
        "media_details",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("frames", sa.LargeBinary, nullable=False),
        sa.Column("starts", sa.LargeBinary, nullable=False),
        sa.Column("highlights", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "renditions",
        sa.Column("title_id", sa.String(63), primary_key=True),
        sa.Column("rendition_id", sa.String(63), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("h264", sa.Boolean, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("encoded", sa.LargeBinary, nullable=False),
        sa.Column("init_object_key", sa.Text),
        sa.Column("init_sha256", sa.LargeBinary(32)),
        sa.Column("codecs", sa.Text),
        sa.Column("timescale", sa.Integer),
        sa.Column("published_count", sa.Integer, nullable=False),
        sa.Column("ready_count", sa.Integer, nullable=False),
        sa.Column("size_sum_bytes", sa.BigInteger, nullable=False),
        sa.Column("duration_sum_ticks", sa.BigInteger, nullable=False),
        sa.Column("peak_bits_per_second", sa.BigInteger, nullable=False),
        sa.Column("last_number", sa.Integer),
    )
