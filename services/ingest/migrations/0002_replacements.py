"""Uploads that take the place of the source that their title has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add whether an upload replaces."""
    op.add_column("uploads", sa.Column("replaces", sa.Boolean, nullable=False, server_default=sa.false()))
