"""Two schedulers and a standby on one PostgreSQL, as processes of their own, killed one after the other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.runtime.auth import ServiceTokens
from services.runtime.channels import CHANNEL_OPTIONS, CallerChannel
from services.runtime.keys import open_keys
from services.runtime.testing import bearer, serving, settings_in
from tests.engines.postgres import Postgres, PostgresCluster
from tests.engines.process import EngineProcess, answers, free_port
from tests.integration.scheduler.fakes import Catalog, Preprocessor, Worker, catalog_build, preprocessor_build
from tests.integration.scheduler.test_pipeline import World, until, working

pytestmark = pytest.mark.engine

RENDITIONS = ("h264-720", "h264-480", "av1-480", "aac-128-und-0")


@dataclass(kw_only=True)
class Farm:
    """Scripted peers here, schedulers as processes of their own."""

    world: World
    processes: Mapping[str, EngineProcess]
    ports: Mapping[str, int]
    stubs: Mapping[str, SchedulerServiceStub]

    def start(self, name: str) -> None:
        port = self.ports[name]
        self.processes[name].start(lambda: answers("127.0.0.1", port))

    async def create(self, job_id: str, at: str) -> None:
        """Make a job through one scheduler."""
        w = self.world
        await World(process=w.process, catalog=w.catalog, channel=w.channel, stub=self.stubs[at]).create(
            job_id, f"titles/{job_id}"
        )

    async def end_of(self, job_id: str, at: str) -> scheduler.Job:
        """The job as one scheduler sees its end."""
        job = scheduler.Job()
        async for answer in self.stubs[at].WatchJob(api.WatchJobRequest(name=f"jobs/{job_id}")):
            job = answer.job
        return job

    async def insist_on_end(self, job_id: str, at: str) -> scheduler.Job:
        """The same, asked again while the scheduler has no database."""
        while True:
            try:
                return await self.end_of(job_id, at)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)

    def assert_whole(self, job_id: str) -> None:
        """Every segment of the job's title is published, and once."""
        whole = list(range(8))
        assert self.world.catalog.numbers(f"titles/{job_id}") == dict.fromkeys(RENDITIONS, whole)
        mine = sorted(p[:2] for p in self.world.catalog.publications if f"/{job_id}/" in p[2])
        assert mine == sorted((r, n) for r in RENDITIONS for n in whole)


@asynccontextmanager
async def farm(folder: Path, urls: Mapping[str, str], **executors: str) -> AsyncIterator[Farm]:
    """`urls` of the two databases; `executors` are processes by name, with the id each executes as."""
    catalog, keys = Catalog(), folder / "keys"
    settings = settings_in(folder / "peers", keys_dir=keys, objects_dir=folder / "objects")
    parts: dict[str, Any] = {
        "catalog": catalog_build(catalog),
        "preprocessor": preprocessor_build(Preprocessor()),
    }
    ports = {name: free_port() for name in executors}
    async with serving(folder, settings=settings, **parts) as peers:
        processes = {}
        for name, executor in executors.items():
            (folder / name).mkdir()
            processes[name] = EngineProcess(
                name,
                [sys.executable, "-m", "cli.main", "serve", "scheduler"],
                folder / name,
                {
                    "KINO_DATA_DIR": str(folder / name),
                    "KINO_KEYS_DIR": str(keys),
                    "KINO_OBJECTS_DIR": str(folder / "objects"),
                    "KINO_GRPC_PORT": str(ports[name]),
                    "KINO_SCHEDULER_ID": executor,
                    "KINO_SQL_URLS": json.dumps(urls),
                    "KINO_ENDPOINTS": json.dumps({"catalog": peers.address, "preprocessor": peers.address}),
                    "PYTHONPATH": os.getcwd(),
                },
            )
        metadata = bearer(ServiceTokens(open_keys(keys).internal, peers.context.clock).token("test"))
        channels = {
            name: grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)
            for name, port in ports.items()
        }
        everywhere = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports.values())
        channels["all"] = grpc.aio.insecure_channel(everywhere, options=CHANNEL_OPTIONS)
        calling = {name: CallerChannel(channel, lambda: metadata) for name, channel in channels.items()}
        stubs = {name: SchedulerServiceStub(channel) for name, channel in calling.items()}
        world = World(process=peers, catalog=catalog, channel=calling["all"], stub=stubs["all"])
        try:
            yield Farm(world=world, processes=processes, ports=ports, stubs=stubs)
        finally:
            for process in processes.values():
                process.stop()
            for channel in channels.values():
                await channel.close()


@pytest.fixture
def urls(postgres: Postgres) -> Iterator[Mapping[str, str]]:
    databases = {name: postgres.new_database() for name in ("scheduler", "workflows")}
    yield {name: postgres.url(database) for name, database in databases.items()}
    for database in databases.values():
        postgres.drop_database(database)


async def test_any_of_two_schedulers_may_die_and_all_jobs_complete(
    tmp_path: Path, urls: Mapping[str, str]
) -> None:
    async with farm(tmp_path, urls, s0="s0", s1="s1", spare="s0") as f:
        for name in ("s0", "s1", "spare"):
            f.start(name)
        gate = asyncio.Event()

        async def script(worker: Worker, task: scheduler.Task) -> Any:
            # A task of each job is at hand whenever a scheduler dies.
            if task.name.endswith("video-h264-000003"):
                await gate.wait()
            return await worker.result(task)

        workers = [f.world.worker(name=f"w{n}", slots=3, script=script) for n in range(2)]
        async with working(*workers):
            for job_id, at in (("a", "s0"), ("b", "s1"), ("c", "spare")):
                await f.create(job_id, at)
            await until(lambda: sum(len(worker.taken) for worker in workers) > 20)
            f.processes["s0"].kill()
            await f.create("d", "s1")
            f.start("s0")
            f.processes["s1"].kill()
            await f.create("e", "spare")
            gate.set()
            jobs = await asyncio.gather(*[f.end_of(job_id, "spare") for job_id in "abcde"])
        assert [job.state for job in jobs] == [scheduler.Job.STATE_SUCCEEDED] * 5, [job.error for job in jobs]
        for job_id in "abcde":
            f.assert_whole(job_id)


async def test_schedulers_go_on_when_the_primary_is_killed_and_a_standby_promoted(
    tmp_path: Path, postgres_cluster: PostgresCluster
) -> None:
    databases = {name: postgres_cluster.primary.new_database() for name in ("scheduler", "workflows")}
    urls = {name: postgres_cluster.url(database) for name, database in databases.items()}
    async with farm(tmp_path, urls, s0="s0", s1="s1") as f:
        f.start("s0")
        f.start("s1")
        gate = asyncio.Event()

        async def script(worker: Worker, task: scheduler.Task) -> Any:
            if task.name.endswith("video-h264-000003"):
                await gate.wait()
            return await worker.result(task)

        workers = [f.world.worker(name=f"w{n}", slots=3, script=script) for n in range(2)]
        async with working(*workers):
            await f.create("a", "s0")
            await f.create("b", "s1")
            await until(lambda: sum(len(worker.taken) for worker in workers) > 12)
            old = postgres_cluster.primary
            await asyncio.to_thread(old.kill)
            gate.set()
            await asyncio.to_thread(postgres_cluster.promote)
            jobs = await asyncio.gather(f.insist_on_end("a", "s0"), f.insist_on_end("b", "s1"))
        assert [job.state for job in jobs] == [scheduler.Job.STATE_SUCCEEDED] * 2, [job.error for job in jobs]
        f.assert_whole("a")
        f.assert_whole("b")
    await asyncio.to_thread(postgres_cluster.add_standby, old)
