"""An edge's reports of itself to the playback service, from its start until it goes down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from services.playback.edges import REPORT_EVERY_S, EdgeRegistry, EdgeReport
from services.runtime.clock import Clock
from services.runtime.errors import KinoError
from services.runtime.logs import logger

_log = logger("playback.edge")


class Beat:
    """Reports every `REPORT_EVERY_S`, and once more when the edge leaves."""

    def __init__(self, registry: EdgeRegistry, measure: Callable[[], EdgeReport], clock: Clock) -> None:
        """`measure` tells what is to be reported; the rate of what is sent is added here."""
        self._registry = registry
        self._measure = measure
        self._clock = clock
        self._sent: tuple[float, int] | None = None
        self._heard = True
        self._turn = asyncio.Lock()
        self._goodbye: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._tell(leaving=False)
            await asyncio.sleep(REPORT_EVERY_S)

    def leave(self) -> None:
        """Say that the edge goes down, and nothing after that."""
        self._goodbye = asyncio.create_task(self._tell(leaving=True))

    async def close(self) -> None:
        """Wait until that was said."""
        if self._goodbye is not None:
            await self._goodbye

    async def _tell(self, *, leaving: bool) -> None:
        async with self._turn:  # a report still under way must not arrive after the last one
            if self._goodbye is not None and not leaving:
                return
            try:
                await self._registry.report(replace(self._rated(), leaving=leaving))
            except KinoError as error:
                if self._heard:
                    _log.warning("the edge's report was not taken", problem=error.message)
                self._heard = False
                return
            if not self._heard:
                _log.info("the edge's reports are taken again")
            self._heard = True

    def _rated(self) -> EdgeReport:
        report, now_s = self._measure(), self._clock.monotonic()
        before_s, before_bytes = self._sent or (now_s, report.sent_bytes)
        self._sent = now_s, report.sent_bytes
        elapsed_s = now_s - before_s
        rate = round((report.sent_bytes - before_bytes) / elapsed_s) if elapsed_s > 0 else 0
        return replace(report, sent_bytes_per_second=rate)
