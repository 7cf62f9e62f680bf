"""Scratch space of a worker: bounded, and rid of what killed workers left."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

from services.media.errors import MediaError
from services.runtime.claims import PREFIX, Claim, claim, collect
from services.runtime.errors import Code
from services.runtime.logs import logger

_log = logger("scratch")
GIB = 1 << 30
MIB = 1 << 20
DEFAULT_BUDGET_BYTES = 4 * GIB
#: What the folders of this task are for, in words that `kino doctor disk` shows.
TASK: ContextVar[str] = ContextVar("TASK", default="")


class ScratchFull(MediaError):
    """The worker's scratch space cannot hold the task: {problem}."""

    code = Code.UNAVAILABLE
    reason = "SCRATCH_FULL"


class Scratch:
    """Folders for tasks, together never larger than the budget: a task says what it may write, and waits.

    What a task says has to be enforced by the limits of its child (`sandbox.Limits.file_bytes`).
    """

    def __init__(
        self, root: Path | None = None, budget_bytes: int = DEFAULT_BUDGET_BYTES, owner: str = ""
    ) -> None:
        """`root` is the parent of all folders; None: the system's. `owner` is told to those who look."""
        self._root, self._budget = root, budget_bytes
        self._owner = owner or f"process {os.getpid()} on {platform.node()}"
        self._reserved = 0
        self._freed: asyncio.Condition | None = None

    @property
    def root(self) -> Path:
        """Where the folders are."""
        return self._root or Path(tempfile.gettempdir())

    @asynccontextmanager
    async def folder(self, name: str, most_bytes: int) -> AsyncIterator[Path]:
        """A folder that may hold so much, once there is room; it goes with the context.

        Raises `ScratchFull` when there never will be room, or the disk itself has none.
        """
        if most_bytes > self._budget:
            need, most = most_bytes // MIB, self._budget // MIB
            raise ScratchFull(problem=f"it may need {need} MiB, KINO_SCRATCH_BYTES allows {most}")
        # Made in the loop that uses it.
        freed = self._freed = self._freed or asyncio.Condition()
        async with freed:
            await freed.wait_for(lambda: self._reserved + most_bytes <= self._budget)
            self._reserved += most_bytes
        try:
            held = await self._claim(name, most_bytes)
            try:
                yield held.path
            finally:
                held.release()
        finally:
            self._reserved -= most_bytes
            async with freed:
                freed.notify_all()

    async def _claim(self, name: str, most_bytes: int) -> Claim:
        try:
            await asyncio.to_thread(self._check_disk, most_bytes)
            return claim(self.root, f"{PREFIX}{name}-", {"worker": self._owner, "task": TASK.get()})
        except OSError as error:
            raise ScratchFull(problem=f"{self.root} can't be written ({error.strerror})") from error

    def _check_disk(self, most_bytes: int) -> None:
        if shutil.disk_usage(self.root).free < most_bytes:
            self.collect_orphans()
            free = shutil.disk_usage(self.root).free
            if free < most_bytes:
                raise ScratchFull(problem=f"the disk below {self.root} has {free // MIB} MiB left")

    def collect_orphans(self) -> list[Path]:
        """Removes the folders of workers and commands that are gone; those removed."""
        found = list(collect(self.root, PREFIX))
        if found:
            _log.info("scratch of ended workers removed", count=len(found))
        return found
