"""Who wants to know that a job has changed, inside one process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Signals:
    """Wakes waiters; what changed they read from the store."""

    #: How long a waiter waits at most; None where no other process changes anything.
    bound_s: float | None = None

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Event]] = {}
        #: True when the service ends: nothing will change any more.
        self.closed = False
        #: Told what other schedulers have changed.
        self.on_heard: Callable[[], None] = lambda: None

    def changed(self, job_id: str) -> None:
        """The job has changed in the store: wake everybody who watches it, in whichever scheduler."""
        self.moved(job_id)

    def moved(self, job_id: str) -> None:
        """Something about the job changed that only this process knows yet."""
        for event in self._waiters.get(job_id, ()):
            event.set()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        self.wake_all()

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

    async def wait(self, event: asyncio.Event) -> None:
        """Wait for the event, but not so long that a lost word of another scheduler matters."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.bound_s):
                await event.wait()

    async def run(self) -> None:
        """Speak with the other schedulers until cancelled; there are none here."""

    def wake_all(self) -> None:
        """Anything may have changed."""
        for job_id in list(self._waiters):
            self.moved(job_id)
