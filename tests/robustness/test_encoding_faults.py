"""Real encoders and a scheduler as processes, disturbed while a film is encoded.

Whatever happens: the title completes, every segment is published once, with the bytes of an undisturbed run,
nothing else is left in the origin, and no more is done again than what a killed worker had in hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import grpc.aio
import pytest

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as jobs
from kino.scheduler.v1 import scheduler_pb2 as api
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.media.testfilm import FilmSpec, make_film
from services.runtime.app import Running
from services.runtime.testing import serving, settings_in
from services.scheduler.model import LEASE, MAX_FAILURES, MAX_WORKER_FAILURES
from services.search.bootstrap import build as build_search
from tests.engines.process import EngineProcess, answers, free_port

SPEC = FilmSpec(seconds=Fraction(24), width=426, height=240, cuts=(5.4, 11.2, 16.7), loud=None)
TITLE_REQUEST = "0190d9c0-0000-7000-8000-000000000001"
T = TypeVar("T")
#: What is published, by rendition and number, as digests of its bytes.
Digests = Mapping[tuple[str, int], bytes]


@dataclass(kw_only=True)
class Farm:
    """A scheduler, a preprocessor and two encoders, everything else in this process."""

    process: Running
    scheduler: EngineProcess
    encoders: list[EngineProcess]
    preprocessor: EngineProcess
    port: int

    @property
    def work(self) -> SchedulerServiceStub:
        return self.process.context.channels.of_service("ingest").stub(SchedulerServiceStub)

    @property
    def catalog(self) -> CatalogServiceStub:
        return self.process.context.channels.of_service("scheduler").stub(CatalogServiceStub)

    async def start_scheduler(self) -> None:
        await asyncio.to_thread(self.scheduler.start, lambda: answers("127.0.0.1", self.port))

    async def begin(self, film: Path) -> str:
        """Have the film encoded; the title's name."""
        request = catalog.CreateTitleRequest(title=titles.Title(display_name="One"), request_id=TITLE_REQUEST)
        title = (await self.catalog.CreateTitle(request)).title.name
        await self.encode(film, title, "one")
        return title

    async def encode(self, film: Path, title: str, job_id: str) -> None:
        """Have a job make the film the title's."""
        info = await self.process.context.objects.put(f"sources/{job_id}", film)
        source = preprocessor.Source(
            object_key=f"sources/{job_id}", size_bytes=info.size_bytes, sha256=bytes.fromhex(info.sha256)
        )
        job = api.CreateJobRequest(job_id=job_id, title=title, owner="users/ann", source=source)
        await insist(lambda: self.work.CreateJob(job))

    async def tasks(self, job: str = "jobs/one") -> list[jobs.TaskExplanation]:
        request = api.ExplainJobRequest(name=job, page_size=1000)
        return list((await insist(lambda: self.work.ExplainJob(request))).tasks)

    async def holds(self, worker: str) -> None:
        """Return once the worker is in the midst of encoding pictures."""
        while True:
            for task in await self.tasks():
                running = task.state == jobs.TaskExplanation.STATE_RUNNING and "/video-" in task.task
                if running and task.attempts[-1].worker == f"workers/{worker}":
                    return
            await asyncio.sleep(0.05)

    async def failed(self) -> None:
        """Return once an attempt has failed."""
        while True:
            tried = [attempt for task in await self.tasks() for attempt in task.attempts]
            if any(attempt.HasField("error") for attempt in tried):
                return
            await asyncio.sleep(0.05)

    async def end(self, job: str = "jobs/one") -> jobs.Job:
        """The job at its end, through any break."""
        while True:
            try:
                async for word in self.work.WatchJob(api.WatchJobRequest(name=job)):
                    if word.job.HasField("end_time"):
                        return word.job
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)

    async def published(self, title: str, job: str = "") -> Digests:
        """All that can be played, or was made by the job; asserts that nothing else is left of it."""
        await self.cleared()
        media = (await self.catalog.GetMedia(catalog.GetMediaRequest(title=title, job=job))).media
        found: dict[tuple[str, int], bytes] = {}
        keys: set[str] = set()
        for rendition in media.renditions:
            request = catalog.ListSegmentsRequest(
                title=title, job=job, rendition_id=rendition.rendition_id, page_size=2000
            )
            segments = (await self.catalog.ListSegments(request)).segments
            keys |= {rendition.init_object_key, *(segment.object_key for segment in segments)}
            found |= {(rendition.rendition_id, s.number): s.sha256 for s in segments}
        objects = self.process.context.objects
        prefix = f"media/{title.removeprefix('titles/')}/{job.removeprefix('jobs/')}/" if job else "media/"
        left = {entry.key async for entry in objects.list(prefix)}
        assert {key for key in left if key.endswith((".m4s", ".mp4"))} == keys
        return found

    async def cleared(self) -> None:
        """Return once the job's workflow has removed what lost: then nothing of it is written any more."""
        objects = self.process.context.objects

        async def keys() -> set[str]:
            return {entry.key async for entry in objects.list("media/")}

        before: set[str] = set()
        while (now := await keys()) != before:
            before = now
            await asyncio.sleep(1)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again while the scheduler is away."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def farm(
    folder: Path,
    *,
    cramped: bool = False,
    origin: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Farm]:
    """`cramped`: the first encoder's disk holds no whole chunk. `origin`: where the objects are.

    `environment` is that of the processes.
    """
    keys, objects, port, looking = folder / "keys", origin or folder / "objects", free_port(), free_port()
    endpoints = {"scheduler": f"127.0.0.1:{port}", "preprocessor": f"127.0.0.1:{looking}"}
    settings = settings_in(folder / "here", keys_dir=keys, objects_dir=objects, endpoints=endpoints)
    async with serving(folder, settings=settings, catalog=build_catalog, search=build_search) as process:
        endpoints["catalog"] = process.address
        env = {
            "KINO_KEYS_DIR": str(keys),
            "KINO_OBJECTS_DIR": str(objects),
            "KINO_ENDPOINTS": json.dumps(endpoints),
            "KINO_GRACE_S": "1",
            "PYTHONPATH": os.getcwd(),
            **(environment or {}),
        }
        scheduler = _process(folder, "scheduler", {**env, "KINO_GRPC_PORT": str(port)})
        encoders = [
            _process(folder, f"encoder-{n}", env, within=_CRAMPED if cramped and not n else ())
            for n in range(2)
        ]
        preprocessor = _process(folder, "preprocessor", {**env, "KINO_GRPC_PORT": str(looking)})
        found = Farm(
            process=process, scheduler=scheduler, encoders=encoders, preprocessor=preprocessor, port=port
        )
        try:
            await found.start_scheduler()
            for worker in (*encoders, preprocessor):
                worker.launch()
            yield found
        finally:
            for each in (*encoders, preprocessor, scheduler):
                each.stop()


#: Runs a command of the shell that may mount disks of its own.
_APART = (
    "unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-c",
)  # fmt: skip
#: Runs a program where its scratch folder is a disk of its own, and a small one.
_CRAMPED = (*_APART, 'mount -t tmpfs -o size=64k kino "$TMPDIR" && exec "$@"', "sh")


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A disk of that size, seen by all who go through the process that holds it."""
    mount = f'mount -t tmpfs -o size={size_bytes} kino "$0" && touch mounted && exec sleep infinity'
    holder = EngineProcess("disk", [*_APART, mount, folder / "disk"], folder)
    (folder / "disk").mkdir()
    try:
        holder.start((folder / "mounted").exists)
        yield Path(f"/proc/{holder.pid}/root{folder / 'disk'}")
    finally:
        holder.stop()


def _process(folder: Path, name: str, env: Mapping[str, str], within: tuple[str, ...] = ()) -> EngineProcess:
    (folder / name / "scratch").mkdir(parents=True)
    service = name.partition("-")[0]
    own = {
        "KINO_DATA_DIR": str(folder / name),
        "KINO_WORKER_ID": name,
        "TMPDIR": str(folder / name / "scratch"),
    }
    argv = [*within, sys.executable, "-m", "cli.main", "serve", service]
    return EngineProcess(name, argv, folder / name, {**env, **own})


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, film: Path) -> Digests:
    async def run() -> Digests:
        async with farm(tmp_path_factory.mktemp("undisturbed")) as f:
            title = await f.begin(film)
            assert (await f.end()).state == jobs.Job.STATE_SUCCEEDED
            return await f.published(title)

    return asyncio.run(run())


async def disturbed(
    folder: Path,
    film: Path,
    disturb: Callable[[Farm], Awaitable[None]],
    *,
    cramped: bool = False,
    origin: Path | None = None,
) -> tuple[Digests, int]:
    """What is published in spite of it, and how many attempts there were beyond the first of each task."""
    async with farm(folder, cramped=cramped, origin=origin) as f:
        title = await f.begin(film)
        await disturb(f)
        job = await f.end()
        assert job.state == jobs.Job.STATE_SUCCEEDED, job.error
        repeated = sum(len(task.attempts) - 1 for task in await f.tasks())
        found = await f.published(title), repeated
    assert scratch_left(folder) == []
    return found


def scratch_left(folder: Path) -> list[Path]:
    """What the workers have not cleared up."""
    return list(folder.glob("encoder-*/scratch/*"))


async def test_a_worker_and_the_scheduler_killed_in_the_midst_cost_only_what_was_in_hand(
    tmp_path: Path, film: Path, undisturbed: Digests
) -> None:
    async def disturb(f: Farm) -> None:
        await f.holds("encoder-0")
        f.encoders[0].kill()
        f.encoders[0].launch()
        await f.holds("encoder-1")
        f.scheduler.kill()
        await f.start_scheduler()
        await f.holds("encoder-0")
        f.scheduler.kill()
        f.encoders[0].kill()
        f.encoders[0].launch()
        await f.start_scheduler()

    published, repeated = await disturbed(tmp_path, film, disturb)
    assert published == undisturbed
    # Two kills of a worker with one slot.
    assert repeated <= 2


async def test_a_worker_that_stands_still_past_its_lease_does_not_come_between(
    tmp_path: Path, film: Path, undisturbed: Digests
) -> None:
    async def disturb(f: Farm) -> None:
        await f.holds("encoder-0")
        os.kill(f.encoders[0].pid, signal.SIGSTOP)
        held = [task.task for task in await f.tasks() if len(task.attempts) == 1]
        deadline = asyncio.get_running_loop().time() + 4 * LEASE.total_seconds()
        while not any(len(task.attempts) > 1 for task in await f.tasks()):
            assert held
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.2)
        os.kill(f.encoders[0].pid, signal.SIGCONT)

    published, repeated = await disturbed(tmp_path, film, disturb)
    assert (published, repeated) == (undisturbed, 1)


async def test_a_worker_without_room_fails_alone(tmp_path: Path, film: Path, undisturbed: Digests) -> None:
    async def disturb(f: Farm) -> None:
        await f.failed()

    published, repeated = await disturbed(tmp_path, film, disturb, cramped=True)
    assert published == undisturbed
    assert repeated >= 1


async def test_a_full_origin_costs_no_attempt_and_the_title_completes_once_there_is_room(
    tmp_path: Path, film: Path, undisturbed: Digests
) -> None:
    with small_disk(tmp_path, 64 << 20) as origin:
        ballast = origin / "ballast"

        async def disturb(f: Farm) -> None:
            await f.holds("encoder-0")
            await asyncio.to_thread(_fill, ballast)
            # Were these counted, a task would be given up and both workers were in quarantine.
            while not any(_full(task) >= MAX_FAILURES for task in await f.tasks()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            assert sum(_full(task) for task in await f.tasks()) > 2 * MAX_WORKER_FAILURES
            waiting = [task for task in await f.tasks() if task.state == task.STATE_WAITING]
            assert any("The origin is full: make room." in task.next_step for task in waiting)
            ballast.unlink()

        published, _ = await disturbed(tmp_path, film, disturb, origin=origin)
        assert published == undisturbed
        assert list(origin.glob(".tmp/*/*")) == []


def _full(task: jobs.TaskExplanation) -> int:
    """How many of its attempts met a full origin."""
    return sum("STORAGE_FULL" in str(attempt.error.details) for attempt in task.attempts)


def _fill(ballast: Path) -> None:
    """Write until the disk takes no more."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def test_an_origin_that_fails_and_comes_back_loses_nothing(
    tmp_path: Path, film: Path, undisturbed: Digests
) -> None:
    async def disturb(f: Farm) -> None:
        media = tmp_path / "objects" / "media"
        while not media.is_dir():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        aside = media.with_name("aside")
        media.rename(aside)
        media.write_text("no folder")
        await f.failed()
        media.unlink()
        aside.rename(media)

    published, _ = await disturbed(tmp_path, film, disturb)
    assert published == undisturbed
    shutil.rmtree(tmp_path / "objects")
