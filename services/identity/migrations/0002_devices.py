"""Sessions tell which device they belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Sessions from before have no name."""
    op.add_column("sessions", sa.Column("device", sa.Text, nullable=False, server_default=""))
