"""PostgreSQL clears the tasks' dead rows away soon: each look for work walks past those of taken tasks.

A task that is taken leaves its entry in the index of waiting tasks until a vacuum, and a look reads all of
these: eight more pages for every thousand tasks, each with a lock that serialisable transactions check. By
its own rules PostgreSQL waits until a fifth of the table is dead, and takes breaks while it works.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Set the table's storage parameters, where the engine has them."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE tasks SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,"
            " autovacuum_vacuum_cost_delay = 0)"
        )
