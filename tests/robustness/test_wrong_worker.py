"""A worker whose encodes are wrong, found by repeating them, and kept from work until it is readmitted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import grpc.aio

from cli.commands.verify import verified
from kino.encoder.v1.encoder_pb2_grpc import EncoderServiceStub
from kino.scheduler.v1 import resources_pb2 as jobs
from kino.scheduler.v1 import scheduler_pb2 as api
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.media.testfilm import FilmSpec, make_film
from services.preprocessor.bootstrap import build as build_preprocessor
from services.runtime.app import Running
from services.runtime.channels import CHANNEL_OPTIONS, CallerChannel
from services.runtime.testing import bearer, serving, user_token
from services.scheduler.bootstrap import build as build_scheduler
from services.search.bootstrap import build as build_search
from tests.engines.process import EngineProcess, free_port
from tests.integration.test_encode_worker import put_source, run_job

SPEC = FilmSpec(seconds=Fraction(9), width=256, height=144, cuts=(4.4,), loud=None)
ROOT = Path(__file__).parents[2]
Stub = TypeVar("Stub")

#: An encoder that gives FFmpeg other arguments than it is told: everything fits, and the bytes are others.
_WRONG = """
from dataclasses import replace
from services.encoder import wire

told = wire.video_rungs_of
wire.video_rungs_of = lambda rungs: [replace(rung, crf=rung.crf + 6) for rung in told(rungs)]

from cli.main import main
main()
"""


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Encoders as processes; everything else, and an operator, in this one."""

    process: Running
    encoders: dict[str, EngineProcess]
    to_encoders: grpc.aio.Channel
    to_others: grpc.aio.Channel

    def stub(self, stub_class: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """The operator's calls; those to encoders go round, as they do behind a gateway."""
        token = bearer(user_token(self.process, "users/root", "operator"))
        channel = self.to_encoders if stub_class is EncoderServiceStub else self.to_others
        return stub_class(CallerChannel(channel, lambda: token, unary_cap_s=None))

    async def workers(self) -> dict[str, jobs.Worker]:
        """The connected encoders."""
        listed = await self.stub(SchedulerServiceStub).ListWorkers(api.ListWorkersRequest())
        names = {f"workers/{name}" for name in self.encoders}
        return {w.name: w for w in listed.workers if w.connected and w.name in names}

    async def launch(self, *names: str) -> None:
        """Start encoders, and return once the scheduler knows them."""
        for name in names:
            self.encoders[name].launch()
        while not {f"workers/{name}" for name in names} <= set(await self.workers()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@asynccontextmanager
async def farm(folder: Path) -> AsyncIterator[Farm]:
    """Three encoders that do not run yet; `wrong` is wrong."""
    ports = {name: free_port() for name in ("right-0", "right-1", "wrong")}
    async with serving(
        folder,
        catalog=build_catalog,
        search=build_search,
        preprocessor=build_preprocessor,
        scheduler=build_scheduler,
    ) as process:
        env = {
            "KINO_KEYS_DIR": str(process.context.settings.keys_folder),
            "KINO_OBJECTS_DIR": str(process.context.settings.objects_folder),
            "KINO_ENDPOINTS": f'{{"scheduler": "{process.address}"}}',
            "KINO_GRACE_S": "1",
            "PYTHONPATH": str(ROOT),
        }
        encoders = {
            name: _encoder(folder, name, {**env, "KINO_GRPC_PORT": str(port)}) for name, port in ports.items()
        }
        address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports.values())
        try:
            async with (
                grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as to_encoders,
                grpc.aio.insecure_channel(process.address, options=CHANNEL_OPTIONS) as to_others,
            ):
                yield Farm(process=process, encoders=encoders, to_encoders=to_encoders, to_others=to_others)
        finally:
            for encoder in encoders.values():
                encoder.stop()


def _encoder(folder: Path, name: str, env: dict[str, str]) -> EngineProcess:
    (folder / name).mkdir()
    program = ("-c", _WRONG) if name == "wrong" else ("-m", "cli.main")
    own = {"KINO_DATA_DIR": str(folder / name), "KINO_WORKER_ID": name}
    return EngineProcess(name, [sys.executable, *program, "serve", "encoder"], folder / name, {**env, **own})


def quarantine(workers: dict[str, jobs.Worker]) -> dict[str, str]:
    return {name: worker.quarantine_reason for name, worker in workers.items() if worker.quarantine_reason}


async def test_the_worker_that_two_others_contradict_gets_no_tasks_until_it_is_readmitted(
    tmp_path: Path,
) -> None:
    film = tmp_path / "film.mp4"
    await make_film(film, SPEC)
    async with farm(tmp_path) as f:
        await f.launch("right-0", "wrong")
        title, job = await run_job(f.process, await put_source(f.process, film))
        assert job.state == jobs.Job.STATE_SUCCEEDED, job.error

        two = await verified(f, title, 1.0)
        assert two.differing
        assert two.quarantined == quarantine(await f.workers()) == {}
        assert "Fewer than three workers answered" in two.verdict()

        await f.launch("right-1")
        three = await verified(f, title, 1.0)
        made_wrong = {one.record.task for one in three.differing if one.record.worker == "workers/wrong"}
        assert {one.wrong for one in three.differing} == {"workers/wrong"}
        assert quarantine(await f.workers()) == three.quarantined
        assert list(three.quarantined) == ["workers/wrong"]
        assert "no tasks until `kino jobs readmit workers/wrong`" in three.verdict()

        again = await verified(f, title, 1.0)
        assert made_wrong <= {one.record.task for one in again.differing}
        assert {one.record.worker for one in again.differing} <= {"workers/wrong"}
        assert all("workers/wrong" not in {a.worker for a in one.answers} for one in again.checked)

        f.encoders["wrong"].kill()
        while "workers/wrong" in await f.workers():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await f.launch("wrong")
        assert "workers/wrong" in quarantine(await f.workers())
        await f.stub(SchedulerServiceStub).ReadmitWorker(api.ReadmitWorkerRequest(name="workers/wrong"))
        assert quarantine(await f.workers()) == {}
