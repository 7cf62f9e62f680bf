"""Who wants to know that a job has changed; inside one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """Wakes waiters; what changed they read from the store."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Event]] = {}
        #: True when the service ends: nothing will change any more.
        self.closed = False

    def changed(self, job_id: str) -> None:
        """Wake everybody who watches the job."""
        for event in self._waiters.get(job_id, ()):
            event.set()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        for job_id in self._waiters:
            self.changed(job_id)

    @contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change from now on; the watcher clears it before it reads."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(job_id, set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiters.pop(job_id, None)
