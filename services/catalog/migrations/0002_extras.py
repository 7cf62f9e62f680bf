"""Text tracks, chapters and storyboard of a title."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "media_details",
        sa.Column("extras", sa.LargeBinary, nullable=False, server_default=sa.text("''")),
    )
