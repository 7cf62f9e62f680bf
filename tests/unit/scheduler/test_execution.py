from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from services.runtime.clock import ManualClock
from services.scheduler.execution import Executor
from services.scheduler.locks import FileLocks


@dataclass
class Jobs:
    unfinished: list[tuple[str, int]] = field(default_factory=list)

    async def unfinished_jobs(self) -> list[tuple[str, int]]:
        return self.unfinished

    async def unswept_jobs(self, before: datetime) -> list[str]:
        return ["ended"]

    async def swept(self, job_id: str) -> None:
        raise AssertionError("it was not")


@dataclass
class Engine:
    started: list[tuple[str, int]] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    adopted: list[str] = field(default_factory=list)
    launched: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def launch(self) -> None:
        self.launched.set()

    async def start(self, job_id: str, run: int) -> None:
        self.started.append((job_id, run))

    async def others(self) -> set[str]:
        return self.left

    async def adopt(self, executor_id: str) -> int:
        self.adopted.append(executor_id)
        self.left.discard(executor_id)
        return 1

    async def purge(self, before: datetime) -> None:
        return

    async def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def executing(folder: Path, engine: Engine, jobs: Jobs) -> AsyncIterator[Executor]:
    async def make() -> Engine:
        return engine

    async def sweep(job_id: str) -> None:
        raise OSError("the origin is away")

    store: Any = jobs
    executor = Executor("s0", FileLocks(folder), store, ManualClock(), make, sweep)
    running = asyncio.create_task(executor.run())
    try:
        yield executor
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_jobs_are_started_once_for_each_run_though_clearing_up_fails(tmp_path: Path) -> None:
    engine, jobs = Engine(), Jobs([("a", 0)])
    async with executing(tmp_path, engine, jobs) as executor:
        await until(lambda: engine.started)
        jobs.unfinished = [("a", 0), ("b", 0)]
        executor.wake()
        await until(lambda: len(engine.started) == 2)
        jobs.unfinished = [("a", 1), ("b", 0)]
        executor.wake()
        await until(lambda: len(engine.started) == 3)
    assert (engine.started, engine.closed) == ([("a", 0), ("b", 0), ("a", 1)], True)


async def test_an_executor_without_a_standby_is_stood_in_for_only_when_it_is_gone(tmp_path: Path) -> None:
    engine, jobs = Engine(left={"s1"}), Jobs()
    alive = await FileLocks(tmp_path).attempt("s1")
    assert alive
    async with executing(tmp_path, engine, jobs) as executor:
        await engine.launched.wait()
        jobs.unfinished = [("a", 0)]
        executor.wake()
        await until(lambda: engine.started)
        assert engine.adopted == []
        await alive.release()
        await until(lambda: engine.adopted)
    assert engine.adopted == ["s1"]


async def test_a_standby_waits_for_the_lock_and_takes_over(tmp_path: Path) -> None:
    engine = Engine()
    holder = await FileLocks(tmp_path).attempt("s0")
    assert holder
    async with executing(tmp_path, engine, Jobs()):
        await asyncio.sleep(0)
        assert not engine.launched.is_set()
        await holder.release()
        await until(engine.launched.is_set)
