"""Child processes of `kino up`: started tied to it, restarted when they end, stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.runtime.logs import logger

_log = logger("up")
_STOP_AFTER_S = 10.0
_MAX_RESTART_WAIT_S = 30.0


@dataclass(kw_only=True)
class Child:
    """One program that is kept running; its output goes to `log_path`."""

    name: str
    argv: Sequence[str]
    folder: Path
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    #: Added to the niceness, so that encoding never takes a viewer's processor time.
    niceness: int = 0
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it, and keep it running until `stop`."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep:{self.name}")

    async def stop(self) -> None:
        """Ask it to end; after ten seconds make it."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_AFTER_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        command = [sys.executable, "-m", "cli.tether", str(self.niceness), *self.argv]
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.folder,
                env={**os.environ, **self.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches `kino up` alone, which then ends its children in order.
                start_new_session=True,
            )

    async def _keep(self) -> None:
        wait_s = 0.5
        while True:
            assert self._process
            started = asyncio.get_running_loop().time()
            code = await self._process.wait()
            if asyncio.get_running_loop().time() - started > _MAX_RESTART_WAIT_S:
                wait_s = 0.5
            _log.warning(
                "child ended", child=self.name, exit_code=code, restart_s=wait_s, log=str(self.log_path)
            )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _MAX_RESTART_WAIT_S)
            await self._spawn()


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log, for a message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
