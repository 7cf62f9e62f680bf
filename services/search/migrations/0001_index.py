"""The index in generations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("document_id", sa.Integer, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("release_year", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("visible", sa.Boolean, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.UniqueConstraint("generation", "title"),
    )
    generations = op.create_table(
        "generations",
        sa.Column("answering", sa.Integer, primary_key=True),
        sa.Column("building", sa.Integer),
        sa.Column("built", sa.Boolean, nullable=False),
    )
    op.bulk_insert(generations, [{"answering": 1, "building": None, "built": False}])
    op.execute("CREATE VIRTUAL TABLE grams USING fts5(pieces, tokenize='ascii', detail=none)")
