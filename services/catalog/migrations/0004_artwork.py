"""Pictures that stand for titles and series."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for table in ("titles", "series"):
        op.add_column(table, sa.Column("artwork", sa.String(63), nullable=False, server_default=""))
