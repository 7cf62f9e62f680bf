"""Renewals of leases, many in one transaction.

A premiere's viewers begin together, so their leases come due together: one durable write each kept thousands
of streams waiting for the disk. What is asked for while a transaction runs goes with the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime

from services.playback.store import LeaseState

#: Renewals in one transaction, at most: few milliseconds of work.
MOST_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """The end of a lease that was live at `live_at` moves to `expire_time`."""

    name: str
    live_at: datetime
    expire_time: datetime


class Renewals:
    """Collects renewals while others are being stored."""

    def __init__(self, store: Callable[[Sequence[Renewal]], Awaitable[Sequence[LeaseState]]]) -> None:
        """`store` does several in one transaction, and answers what became of each lease."""
        self._store = store
        self._waiting: deque[tuple[Renewal, asyncio.Future[LeaseState]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def renew(self, renewal: Renewal) -> LeaseState:
        """Renew a lease, with others. Raises what `store` raises."""
        done: asyncio.Future[LeaseState] = asyncio.get_running_loop().create_future()
        self._waiting.append((renewal, done))
        if self._task is None:
            # In a context of its own: the deadline of whoever came first is not that of the others.
            self._task = asyncio.create_task(self._run(), context=Context())
        return await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MOST_AT_ONCE)
                await self._together([self._waiting.popleft() for _ in range(count)])
        finally:
            self._task = None

    async def _together(self, batch: list[tuple[Renewal, asyncio.Future[LeaseState]]]) -> None:
        wanted = [(renewal, done) for renewal, done in batch if not done.done()]
        if not wanted:
            return
        try:
            states = await self._store([renewal for renewal, _ in wanted])
        except Exception as error:
            for _, done in wanted:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), state in zip(wanted, states, strict=True):
            if not done.done():
                done.set_result(state)
