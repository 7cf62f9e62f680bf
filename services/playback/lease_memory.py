"""The leases that an edge serves, kept in its folder: a restart goes on with them while playback is away."""

from __future__ import annotations

import asyncio
import json

from services.playback.folder import Folder
from services.playback.leases import CHECK_EVERY, Leases
from services.runtime.clock import Clock
from services.runtime.logs import logger

_NAME = "edge-leases.json"
_log = logger("playback.edge")


class LeaseMemory:
    """Saves the leases as often as they are renewed, so that a crash forgets no renewal that matters."""

    def __init__(self, leases: Leases, folder: Folder, clock: Clock) -> None:
        self._leases = leases
        self._folder = folder
        self._clock = clock

    def recall(self) -> None:
        """Tell the leases what an earlier process knew. Blocks."""
        data = self._folder.remembered(_NAME)
        if data is None:
            return
        try:
            self._leases.restore(json.loads(data))
        except (TypeError, ValueError):
            _log.warning("what another version remembered of leases is not understood")

    async def save(self) -> None:
        """Remember them."""
        data = json.dumps(self._leases.ends()).encode()
        try:
            await asyncio.to_thread(self._folder.remember, _NAME, data, self._clock.now())
        except OSError as error:
            _log.error("the leases can't be remembered", problem=str(error))

    async def keep_saving(self) -> None:
        """Remember them now and then, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY.total_seconds())
            await self.save()
