"""Where leases are kept."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Protocol

from services.playback.model import Lease


class LeaseState(enum.Enum):
    """What became of a lease."""

    LIVE = "live"
    #: Ended by `EndPlayback`.
    ENDED = "ended"
    #: Expired, or never there.
    LOST = "lost"


class LeaseStore(Protocol):
    """Leases that outlive the process; every change is durable when its method returns.

    All methods raise `DatabaseUnavailable` when the store can't be reached.
    """

    async def take(self, lease: Lease, limit: int, request_id: str, now: datetime) -> Lease:
        """Add a lease unless `limit` of its user's are live; counting and adding are one transaction.

        A request id that was used before gives the lease it made then. Raises `ConcurrentStreamLimit`, and
        `RequestIdReused` when the earlier request asked for something else.
        """

    async def renew(self, name: str, live_at: datetime, expire_time: datetime) -> LeaseState:
        """Move the end of a lease that was live at `live_at`; any other stays as it is."""

    async def regain(self, name: str, limit: int, now: datetime, expire_time: datetime) -> LeaseState:
        """Make an expired lease live again unless `limit` of its user's are; any other stays as it is.

        Counting and changing are one transaction.
        """

    async def state(self, name: str, now: datetime) -> LeaseState:
        """What became of a lease; nothing changes."""

    async def end(self, name: str, now: datetime) -> None:
        """End a lease; one that isn't live stays as it is."""

    async def live(self, user: str, now: datetime) -> list[Lease]:
        """A user's live leases, oldest first."""

    async def purge(self, before: datetime) -> int:
        """Forget leases and request ids from before that time; returns how many leases."""
