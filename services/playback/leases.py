"""Keeping leases alive while they are used, and noticing when they are gone."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.playback.errors import LeaseEnded, LeaseLost
from services.playback.model import Lease
from services.playback.store import LeaseState, LeaseStore
from services.runtime.clock import Clock
from services.runtime.errors import Unavailable
from services.runtime.logs import logger

#: A lease in use is renewed this often, and its loss elsewhere noticed as late as that.
CHECK_EVERY = timedelta(seconds=15)
#: How long streams go on while the database is down.
GRACE = timedelta(minutes=10)
#: A database that does not answer within this is down.
CHECK_TIMEOUT_S = 2.0
#: Leases remembered; of an older one the database is asked again.
_REMEMBERED = 10_000
_log = logger("playback.leases")


@dataclass
class _Known:
    """What this node knows of one lease."""

    expire_time: datetime
    check_time: datetime
    state: LeaseState = LeaseState.LIVE
    #: When the database was first found down, while the lease was live.
    down_since: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Leases:
    """The leases that this node serves.

    While the database is down a lease that was live goes on for `GRACE`, and is picked up again afterwards.
    """

    def __init__(self, store: LeaseStore, clock: Clock, ttl: timedelta) -> None:
        """`ttl` is how long a lease lives without being used."""
        self._store = store
        self._clock = clock
        self.ttl = ttl
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def take(self, lease: Lease, limit: int, request_id: str) -> Lease:
        """See `LeaseStore.take`."""
        now = self._clock.now()
        taken = await self._store.take(lease, limit, request_id, now)
        if taken.name == lease.name:
            known = _Known(expire_time=taken.expire_time, check_time=now + CHECK_EVERY)
            self._remember(taken.name, known)
        return taken

    async def hold(self, lease: Lease) -> None:
        """Make sure the lease is live, and renew it now and then; cheap to call before every message.

        Raises `LeaseLost`, `LeaseEnded`, or `Unavailable` when the database is down and the grace used up.
        """
        known = self._of(lease)
        if known.state is LeaseState.LIVE and self._clock.now() >= known.check_time:
            async with known.lock:
                if self._clock.now() >= known.check_time:
                    await self._check(lease, known)
        _raise_unless_live(known.state)

    async def take_up(self, lease: Lease) -> None:
        """As `hold`, but a lease that expired is taken again while the account has a stream left.

        For players that know nothing of leases, and so can neither keep one through a pause nor start again.
        """
        try:
            await self.hold(lease)
        except LeaseLost:
            await self._regain(lease, self._of(lease))

    async def renew(self, lease: Lease) -> datetime:
        """Renew the lease now; its new end. Raises as `hold`."""
        known = self._of(lease)
        async with known.lock:
            if known.state is LeaseState.LIVE:
                await self._check(lease, known)
        _raise_unless_live(known.state)
        return known.expire_time

    async def look(self, lease: Lease) -> None:
        """Make sure the lease is live without renewing it. Raises as `hold`."""
        known = self._of(lease)
        if known.state is LeaseState.LIVE:
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    state = await self._store.state(lease.name, known.down_since or self._clock.now())
            except TimeoutError as error:
                raise Unavailable(1_000) from error
            if known.state is LeaseState.LIVE:
                known.state = state
        _raise_unless_live(known.state)

    async def end(self, lease: Lease) -> None:
        """End the lease: streams on this node stop at their next message, on others at their next check."""
        await self._store.end(lease.name, self._clock.now())
        self._of(lease).state = LeaseState.ENDED

    async def live(self, user: str) -> list[Lease]:
        """A user's live leases, oldest first."""
        return await self._store.live(user, self._clock.now())

    def ends(self) -> list[tuple[str, float, float | None]]:
        """The live leases: name, end, and since when they go on without the database (times of day in s)."""
        now = self._clock.now()
        return [
            (name, known.expire_time.timestamp(), known.down_since.timestamp() if known.down_since else None)
            for name, known in self._known.items()
            if known.state is LeaseState.LIVE and known.expire_time > now
        ]

    def restore(self, ends: Iterable[tuple[str, float, float | None]]) -> None:
        """Know what `ends` told an earlier process; each is checked when it is used."""
        now = self._clock.now()
        for name, end_s, down_s in ends:
            down_since = None if down_s is None else datetime.fromtimestamp(down_s, UTC)
            end = datetime.fromtimestamp(end_s, UTC)
            self._remember(name, _Known(expire_time=end, check_time=now, down_since=down_since))

    async def _check(self, lease: Lease, known: _Known) -> None:
        now = self._clock.now()
        expire_time = now + self.ttl
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                state = await self._store.renew(lease.name, known.down_since or now, expire_time)
        except (Unavailable, TimeoutError) as error:
            self._go_on_without(known, now, error)
        else:
            if known.state is LeaseState.LIVE:
                known.state = state
            known.down_since = None
        known.expire_time, known.check_time = expire_time, now + CHECK_EVERY

    async def _regain(self, lease: Lease, known: _Known) -> None:
        async with known.lock:
            now = self._clock.now()
            if known.state is LeaseState.LOST:
                expire_time = now + self.ttl
                try:
                    async with asyncio.timeout(CHECK_TIMEOUT_S):
                        state = await self._store.regain(lease.name, lease.stream_limit, now, expire_time)
                except TimeoutError as error:
                    raise Unavailable(1_000) from error
                known.state, known.down_since = state, None
                known.expire_time, known.check_time = expire_time, now + CHECK_EVERY
        _raise_unless_live(known.state)

    def _go_on_without(self, known: _Known, now: datetime, error: Exception) -> None:
        """Let a lease live on without the database. Raises `Unavailable` when it may not."""
        if known.down_since is None and known.expire_time > now:
            known.down_since = now
        if known.down_since is None or now >= known.down_since + GRACE:
            raise Unavailable(1_000) from error
        _log.warning("lease goes on without the database", since=known.down_since.isoformat())

    def _of(self, lease: Lease) -> _Known:
        known = self._known.get(lease.name)
        if known is None:
            known = _Known(expire_time=lease.expire_time, check_time=lease.start_time)
        self._remember(lease.name, known)
        return known

    def _remember(self, name: str, known: _Known) -> None:
        self._known[name] = known
        self._known.move_to_end(name)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _raise_unless_live(state: LeaseState) -> None:
    if state is LeaseState.ENDED:
        raise LeaseEnded()
    if state is LeaseState.LOST:
        raise LeaseLost()
