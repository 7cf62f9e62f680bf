"""The next task that may be tried again, found without looking at all that wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the index."""
    retried = sa.text("not_before_us > 0")
    op.create_index(
        "tasks_by_retry", "tasks", ["state", "not_before_us"], sqlite_where=retried, postgresql_where=retried
    )
