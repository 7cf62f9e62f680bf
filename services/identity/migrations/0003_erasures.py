"""What other services hold of a deleted profile is erased too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.runtime.columns import UtcTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Profiles deleted before keep what they left: their names are not known any more."""
    op.create_table(
        "erasures",
        sa.Column("profile", sa.Text, primary_key=True),
        sa.Column("due_time", UtcTime, nullable=False, index=True),
        sa.Column("rounds", sa.Integer, nullable=False),
    )
