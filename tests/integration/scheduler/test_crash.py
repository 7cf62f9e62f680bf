from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.runtime.auth import ServiceTokens
from services.runtime.channels import CHANNEL_OPTIONS, CallerChannel
from services.runtime.keys import open_keys
from services.runtime.testing import bearer, serving, settings_in
from tests.integration.scheduler.fakes import Catalog, Preprocessor, Worker, catalog_build, preprocessor_build
from tests.integration.scheduler.test_pipeline import TITLE, World, until, working

_SERVE = """
import asyncio, sys
from pathlib import Path
from services.runtime.app import running
from services.runtime.testing import settings_in
from services.scheduler.bootstrap import build

async def main(folder, keys, port, peers):
    settings = settings_in(
        Path(folder), keys_dir=Path(keys), objects_dir=Path(folder) / "objects", grpc_port=int(port),
        endpoints={"catalog": peers, "preprocessor": peers},
    )
    async with running(settings, {"scheduler": build}):
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


class Process:
    """The scheduler as a process of its own, to be killed."""

    def __init__(self, folder: Path, keys: Path, peers: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._arguments = [sys.executable, "-c", _SERVE, str(folder), str(keys), str(self.port), peers]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._arguments, cwd=Path.cwd(), env={**os.environ, "KINO_LOG_LEVEL": "error"}
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[tuple[World, Process]]:
    """Scripted peers here, the scheduler in a process of its own."""
    catalog = Catalog()
    keys = folder / "keys"
    settings = settings_in(folder / "peers", keys_dir=keys, objects_dir=folder / "scheduler" / "objects")
    parts: dict[str, Any] = {
        "catalog": catalog_build(catalog),
        "preprocessor": preprocessor_build(Preprocessor()),
    }
    async with serving(folder, settings=settings, **parts) as peers:
        process = Process(folder / "scheduler", keys, peers.address)
        process.start()
        tokens = ServiceTokens(open_keys(keys).internal)
        address = f"127.0.0.1:{process.port}"
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as inner:
            channel = CallerChannel(inner, lambda: bearer(tokens.token("test")))
            try:
                await channel.channel_ready()
                yield (
                    World(
                        process=peers, catalog=catalog, channel=channel, stub=SchedulerServiceStub(channel)
                    ),
                    process,
                )
            finally:
                process.kill()


def begun(worker: Worker, count: int) -> bool:
    return len(worker.taken) >= count


async def ended(w: World) -> scheduler.Job:
    while True:
        try:
            return await w.end_of()
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)


# After so many tasks were begun: while the source is read or analysed, and in the bulk of the encode.
@pytest.mark.parametrize("moments", [[1, 9], [2, 14]])
async def test_a_scheduler_killed_again_and_again_publishes_every_segment_once(
    tmp_path: Path, moments: list[int]
) -> None:
    async with apart(tmp_path) as (w, process):
        worker = w.worker()
        async with working(worker):
            await w.create()
            for moment in moments:
                await until(partial(begun, worker, moment))
                process.kill()
                process.start()
            job = await ended(w)
        assert (job.state, job.progress) == (scheduler.Job.STATE_SUCCEEDED, 1.0)
        whole = list(range(8))
        renditions = ("h264-720", "h264-480", "av1-480", "aac-128-und-0")
        assert w.catalog.numbers(TITLE) == dict.fromkeys(renditions, whole)
        assert sorted(p[:2] for p in w.catalog.publications) == sorted(
            (r, n) for r in renditions for n in whole
        )
        done = [task for task, accepted in worker.settled if accepted]
        assert len(done) == len(set(done))


async def test_a_worker_keeps_its_task_through_a_restart_of_the_scheduler(tmp_path: Path) -> None:
    async with apart(tmp_path) as (w, process):
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def script(worker: Worker, task: scheduler.Task) -> Any:
            if task.name.endswith("video-h264-000002"):
                begun.set()
                await go_on.wait()
            return await worker.result(task)

        worker = w.worker(script=script)
        async with working(worker):
            await w.create()
            await begun.wait()
            process.kill()
            process.start()
            await w.channel.channel_ready()
            go_on.set()
            assert (await ended(w)).state == scheduler.Job.STATE_SUCCEEDED
        held = [task.attempt for task in worker.taken if task.name.endswith("video-h264-000002")]
        assert (held, worker.stopped) == ([1], [])
