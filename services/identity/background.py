"""Beside the calls: what other services hold of a deleted profile is erased."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio

from services.identity.usecases import Identity
from services.runtime.clock import Clock, woken
from services.runtime.logs import logger

_log = logger("identity")

#: Erases what one service holds of the profile with this resource name.
Erase = Callable[[str], Awaitable[object]]

_FIRST_WAIT_S = 0.2
_MAX_WAIT_S = 30.0
#: Never waited for longer, so that a clock that is set forward, or another node's profile, is noticed.
_LOOK_EVERY_S = 60.0


class Eraser:
    """Erases the history and the watchlist of deleted profiles: at least once, and again a day later."""

    def __init__(self, identity: Identity, erase: Sequence[Erase], clock: Clock, wake: asyncio.Event) -> None:
        """`wake` is set after a profile was deleted."""
        self._identity = identity
        self._erase = erase
        self._clock = clock
        self._wake = wake

    async def run(self) -> None:
        """Erase for ever; waits longer each time a service can't be reached."""
        retry_s = _FIRST_WAIT_S
        while True:
            self._wake.clear()
            try:
                due_s = await self.erase_some()
            except grpc.aio.AioRpcError as error:
                _log.warning("profile not erased", code=error.code().name, retry_s=round(retry_s, 1))
                await asyncio.sleep(retry_s * random.uniform(0.5, 1))
                retry_s = min(retry_s * 2, _MAX_WAIT_S)
                continue
            retry_s = _FIRST_WAIT_S
            if due_s > 0:
                await woken(self._wake, min(due_s, _LOOK_EVERY_S))

    async def erase_some(self) -> float:
        """Erase the next profile if it is due; seconds until one may be, 0 when it was."""
        erasure = await self._identity.next_erasure()
        if erasure is None:
            return _LOOK_EVERY_S
        wait_s = (erasure.due_time - self._clock.now()).total_seconds()
        if wait_s > 0:
            return wait_s
        for erase in self._erase:
            await erase(erasure.profile)
        await self._identity.erased(erasure)
        return 0.0
