"""What can be wrong with a database, in the suite's words."""

from __future__ import annotations

from services.runtime.errors import FailedPrecondition, ResourceExhausted, Unavailable


class DatabaseInUse(FailedPrecondition):
    """{problem}"""

    reason = "DATABASE_IN_USE"


class StorageFull(ResourceExhausted):
    """The disk is full: nothing was stored."""

    reason = "STORAGE_FULL"


class DatabaseUnavailable(Unavailable):
    """The database is not available at the moment; try again."""

    reason = "DATABASE_UNAVAILABLE"


class NoSynchronousStandby(DatabaseUnavailable):
    """No standby of the database would hold the change too, so that it was not made; try again."""

    reason = "NO_SYNCHRONOUS_STANDBY"
