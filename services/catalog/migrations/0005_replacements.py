"""Media of several jobs beside each other: what plays, what is to replace it, and what was replaced.

Not for nodes of two ages at once: code from before it can't write media any more, since its keys are gone.
That is why it had to come before the first release.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_KEYS = {
    "media": ("title_id", "job"),
    "media_details": ("title_id", "job"),
    "renditions": ("title_id", "job", "rendition_id"),
}


def upgrade() -> None:
    op.add_column("titles", sa.Column("next_job", sa.String(255), nullable=False, server_default=""))
    op.add_column("titles", sa.Column("next_error", sa.LargeBinary))
    op.add_column("media", sa.Column("replaced", sa.Boolean, nullable=False, server_default=sa.false()))
    for table in ("media_details", "renditions"):
        op.add_column(table, sa.Column("job", sa.String(255), nullable=False, server_default=""))
        job = f"SELECT job FROM media WHERE media.title_id = {table}.title_id"
        op.execute(f"UPDATE {table} SET job = COALESCE(({job}), '')")
    connection = op.get_bind()
    for table, columns in _KEYS.items():
        name = sa.inspect(connection).get_pk_constraint(table)["name"] or f"{table}_pkey"
        # SQLite can't change a key: the table is made anew and filled.
        naming = {"pk": "%(table_name)s_pkey"}
        with op.batch_alter_table(table, naming_convention=naming) as batch:
            batch.drop_constraint(name, type_="primary")
            batch.create_primary_key(f"{table}_pkey", list(columns))
