"""A service's life in its process: wait for its engines, work, report health, end.

A service whose engine is away starts all the same: it reports NOT_SERVING (health v1) for what it can't do,
its calls are refused with a typed reason, and it goes on by itself when the engine is back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from services.runtime.errors import KinoError, ResourceExhausted, Unavailable
from services.runtime.logs import logger

if TYPE_CHECKING:
    from services.runtime.app import ServiceApp

_log = logger("app")
_MIN_RESTART_WAIT_S = 0.5
_MAX_RESTART_WAIT_S = 30.0
#: An engine that is back is noticed within this time, also by a service that nobody calls.
_MAX_OPEN_WAIT_S = 2.0
_CHECK_EVERY_S = 2.0
_CHECK_WITHIN_S = 5.0

Work = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """An engine that a service stands on."""

    #: What it is, for the log: `database`.
    name: str
    #: Health names that can't be served without it: a gRPC service's full name, or one of its methods'.
    serves: Sequence[str]
    #: Connects and brings the schema up to date. Repeated after `Unavailable`; other errors are final at the
    #: start of a process.
    open: Work = nothing
    #: A sign of life; raises what is wrong.
    check: Work = nothing


class Health(Protocol):
    """Where health is reported; the process's server."""

    async def set_serving(self, names: Sequence[str], serving: bool) -> None:
        """Report the health of names."""


class Life:
    """One service between its building and its end."""

    def __init__(self, app: ServiceApp, health: Health) -> None:
        self._app = app
        self._health = health
        self._tasks: list[asyncio.Task[None]] = []
        #: By their place: whether it was opened, and whether it answered when it was last asked.
        self._opened = [False] * len(app.dependencies)
        self._well = [False] * len(app.dependencies)
        self._all_open = asyncio.Event()

    async def open(self) -> None:
        """Open the engines that are there, before the first call.

        Raises what an engine says that waiting does not mend.
        """
        for place, dependency in enumerate(self._app.dependencies):
            try:
                await dependency.open()
                self._opened[place] = True
            except Unavailable as error:
                self._say_away(dependency, error)

    async def begin(self) -> None:
        """Report health and work, as far as the engines allow; the rest as soon as they are there."""
        for work in self._app.background:
            self._start(self._run(work))
        await self._app.ready()
        self._well = list(self._opened)
        await self._report()
        for place in range(len(self._opened)):
            self._start(self._watch(place))

    async def end(self) -> None:
        """Cancel what runs beside the calls."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _run(self, work: Work) -> None:
        await self._all_open.wait()
        await supervise(self._app.name, work)

    async def _report(self) -> None:
        """A name is served while every engine that it stands on is well."""
        names = dict.fromkeys(self._app.grpc_services, True)
        for dependency, well in zip(self._app.dependencies, self._well, strict=True):
            names |= {name: well and names.get(name, True) for name in dependency.serves}
        for serving in (True, False):
            await self._health.set_serving([name for name, is_ in names.items() if is_ is serving], serving)
        if all(self._opened):
            self._all_open.set()

    async def _watch(self, place: int) -> None:
        """Open the engine if it was away, then report whether it answers, for ever."""
        dependency = self._app.dependencies[place]
        if not self._opened[place]:
            await self._open_later(dependency)
            self._opened[place] = True
            await self._change(place, well=True)
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            well = await self._answers(dependency, known=self._well[place])
            if well != self._well[place]:
                await self._change(place, well=well)

    async def _change(self, place: int, *, well: bool) -> None:
        self._well[place] = well
        if well:
            _log.info("engine is there", service=self._app.name, engine=self._app.dependencies[place].name)
        await self._report()

    async def _open_later(self, dependency: Dependency) -> None:
        wait_s = 0.1
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(wait_s * 2, _MAX_OPEN_WAIT_S)
            try:
                await dependency.open()
                return
            except Unavailable:
                continue
            except Exception as error:
                _log.error("engine refuses", service=self._app.name, engine=dependency.name, exc_info=error)

    async def _answers(self, dependency: Dependency, *, known: bool) -> bool:
        try:
            async with asyncio.timeout(_CHECK_WITHIN_S):
                await dependency.check()
            return True
        except ResourceExhausted:
            return True  # too busy to be asked is not away
        except TimeoutError:
            error: Exception = TimeoutError(f"no answer within {_CHECK_WITHIN_S} s")
        except Exception as failed:
            error = failed
        if known:
            self._say_away(dependency, error)
        return False

    def _say_away(self, dependency: Dependency, error: Exception) -> None:
        problem = error.message if isinstance(error, KinoError) else str(error) or type(error).__name__
        # What the driver said: a wrong password looks like an engine that is away.
        cause = str(error.__cause__ or "").partition("\n")[0]
        _log.warning(
            "engine is away", service=self._app.name, engine=dependency.name, problem=problem, cause=cause
        )


async def supervise(name: str, work: Work) -> None:
    """Run `work` again when it fails, waiting longer each time it fails soon."""
    wait_s = _MIN_RESTART_WAIT_S
    while True:
        started = time.monotonic()
        try:
            await work()
            return
        except Exception as error:
            if time.monotonic() - started > _MAX_RESTART_WAIT_S:
                wait_s = _MIN_RESTART_WAIT_S
            if isinstance(error, Unavailable):
                _log.warning(
                    "background work waits", service=name, retry_s=round(wait_s, 1), problem=error.message
                )
            else:
                _log.error("background work failed", service=name, retry_s=wait_s, exc_info=error)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1))
        wait_s = min(wait_s * 2, _MAX_RESTART_WAIT_S)
