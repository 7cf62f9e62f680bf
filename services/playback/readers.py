"""The streams that are being read on this node, and the rule by which they end.

A reader that takes nothing holds one message, no more. It doesn't renew its lease either, and once that is
gone (or was ended elsewhere) it is dropped: the typed reason waits behind the bytes it has yet to take. One
that vanished without a word is found by the server's pings.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from prometheus_client import Counter

from services.playback.errors import TooManyReads
from services.playback.leases import Leases
from services.playback.model import Lease
from services.runtime.clock import Clock
from services.runtime.errors import KinoError, Unavailable
from services.runtime.logs import logger
from services.runtime.metrics import REGISTRY

#: Streams and segments a lease reads at once: HTTP players ask for six, a seek overlaps with what it leaves.
MAX_PER_LEASE = 12
#: A reader that took nothing for so long is looked after: a lost lease is noticed within this and
#: `WATCH_EVERY_S`.
QUIET = timedelta(seconds=15)
#: How often the quiet ones are looked for.
WATCH_EVERY_S = 5.0
DROPPED = Counter(
    "kino_playback_dropped_readers_total", "Quiet readers dropped for their lease.", registry=REGISTRY
)
_log = logger("playback.readers")


class Reader:
    """One stream that is being read."""

    def __init__(self, lease: Lease, clock: Clock, task: asyncio.Task[object] | None) -> None:
        self.lease = lease
        self._clock = clock
        self._task = task
        self._moved_s = clock.monotonic()
        self.taken_bytes = 0
        #: Why it was dropped.
        self.dropped: KinoError | None = None

    def moved(self, size_bytes: int) -> None:
        """It took a message of that size."""
        self._moved_s = self._clock.monotonic()
        self.taken_bytes += size_bytes

    @property
    def quiet(self) -> bool:
        """Whether it took nothing for a while."""
        return self._clock.monotonic() - self._moved_s >= QUIET.total_seconds()

    def drop(self, reason: KinoError) -> None:
        """End it for that reason."""
        if self.dropped is None and self._task is not None:
            self.dropped = reason
            self._task.cancel()


class Readers:
    """All streams of this node."""

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self._readers: set[Reader] = set()
        self._of_lease: defaultdict[str, int] = defaultdict(int)
        #: What readers took who are gone.
        self._taken_bytes = 0
        #: Whether the node goes down: streams end where they are, and go on elsewhere.
        self.leaving = False
        self._when_leaving: list[Callable[[], None]] = []

    def when_leaving(self, call: Callable[[], None]) -> None:
        """Have this called first when the node goes down."""
        self._when_leaving.append(call)

    def leave(self) -> None:
        """Ask all streams to go on elsewhere."""
        for call in self._when_leaving:
            call()
        self.leaving = True

    @property
    def lease_count(self) -> int:
        """Playbacks that read from here now."""
        return len(self._of_lease)

    @property
    def taken_bytes(self) -> int:
        """What readers took since the process began."""
        return self._taken_bytes + sum(reader.taken_bytes for reader in self._readers)

    @contextmanager
    def reading(self, lease: Lease) -> Iterator[Reader]:
        """Around a stream. Raises `TooManyReads`, and within the reason why it was dropped."""
        if self._of_lease[lease.name] >= MAX_PER_LEASE:
            raise TooManyReads(MAX_PER_LEASE)
        reader = Reader(lease, self._clock, asyncio.current_task())
        self._readers.add(reader)
        self._of_lease[lease.name] += 1
        try:
            yield reader
        except asyncio.CancelledError:
            if reader.dropped is None:
                raise
            raise reader.dropped from None
        finally:
            self._readers.discard(reader)
            self._taken_bytes += reader.taken_bytes
            self._of_lease[lease.name] -= 1
            if not self._of_lease[lease.name]:
                del self._of_lease[lease.name]

    async def watch(self) -> None:
        """For ever: drop the quiet ones whose lease is gone."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            await self.drop_lost()

    async def drop_lost(self) -> None:
        """Look at the quiet ones once."""
        for reader in [reader for reader in self._readers if reader.quiet]:
            try:
                await self._leases.look(reader.lease)
            except Unavailable:
                continue  # the database is down: nobody is ended for that
            except KinoError as error:
                _log.info("reader dropped", lease=reader.lease.name, reason=error.reason)
                reader.drop(error)
                DROPPED.inc()
