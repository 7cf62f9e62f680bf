"""Workers whose stream is open at this scheduler, what they hold, and what is to be said to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from services.scheduler.model import Lease, Task
from services.scheduler.store import KnownWorker


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Tell the worker to stop a task."""

    lease: Lease
    reason: str


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Tell the worker that its result or failure was taken, or refused."""

    lease: Lease
    accepted: bool


Word = Task | Stop | Settled | None


@dataclass(kw_only=True)
class Held:
    """A lease as it runs."""

    lease: Lease
    #: When it ends without a word, by the monotonic clock.
    until: float
    #: Since when this process knows of it.
    begun: float
    #: When the progress last changed.
    moved: float
    need: str
    #: Frames of the task.
    frames: int = 0
    progress: float = 0.0
    #: It began here.
    seen_whole: bool = False


@dataclass(kw_only=True)
class Session:
    """A worker with its open stream."""

    worker_id: str
    #: Of this stream; another stream of the worker has another.
    session_id: str
    capabilities: bytes
    needs: frozenset[str]
    slot_count: int
    last_seen: datetime
    #: What is to be said on the stream; None ends it.
    outbox: asyncio.Queue[Word] = field(default_factory=asyncio.Queue)
    held: dict[tuple[str, str], Held] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Slots without a task."""
        return self.slot_count - len(self.held)

    def known(self) -> KnownWorker:
        """What is worth remembering of it."""
        return KnownWorker(
            worker_id=self.worker_id,
            capabilities=self.capabilities,
            slot_count=self.slot_count,
            last_seen=self.last_seen,
            session=self.session_id,
        )
