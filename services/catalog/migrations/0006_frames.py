"""Pictures that are frames of their title, to be taken anew when its source is replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("titles", sa.Column("artwork_frame_ns", sa.BigInteger))
    op.add_column("titles", sa.Column("artwork_stale", sa.Boolean, nullable=False, server_default=sa.false()))
    stale = sa.text("artwork_stale")
    op.create_index(
        "titles_by_stale_artwork", "titles", ["title_id"], sqlite_where=stale, postgresql_where=stale
    )
