"""The whole suite at work: what its scheduler and encoders cost, how long a film takes, how soon it plays.

The first two against one plain FFmpeg process that makes the same ladder, in turns (A B A B); the last
against the time that one chunk's encode takes in the same run.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from google.protobuf.timestamp_pb2 import Timestamp

from bench.encode_clips import CLIPS, Cpu, Prepared, prepared, run_plain, rungs_of
from bench.report import Row
from cli.client import CredentialFile, Kino, connect
from cli.commands.jobs import ensure_succeeded
from cli.suite_process import SuiteProcess, running_suite
from cli.uploading import upload
from kino.catalog.v1 import resources_pb2 as catalog
from kino.identity.v1 import identity_pb2
from kino.identity.v1.identity_pb2_grpc import IdentityServiceStub
from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.encoder.model import VideoCodec
from services.preprocessor.ladder import plan_ladder
from tests.support.encoding import transform

WORKERS = 2
#: Of H.264, nothing measured.
FIXED = {"KINO_ENCODE_QUALITY": "false", "KINO_VIDEO_CODECS": '["h264"]'}
#: As low as the suite's encoders get.
NICE = ("nice", "-n", "19")
#: Shorter than what is tried before it is encoded: the ladder is the fixed one.
_FIXED_FILMS = {
    "bikes (live action)": (10, 110),
    "pedestrians (live action)": (1, 110),
    "big buck bunny 480p": (3, 110),
}
_ASK_EVERY_S = 1.0
#: Several chunks for both workers.
QUICK_SECONDS = 30
_PLAYABLE_SECONDS = (30, 120, 480)
_PLAYABLE_FILM = "big buck bunny 480p"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a film cost, from its job's start to its end."""

    wall_s: float
    #: From the first encode's start to the last one's end.
    encodes_wall_s: float
    #: Processor seconds of the services' own process, of the encoders with all they ran, and of everything.
    services_s: float
    encoders_s: float
    whole_s: float


@dataclass(kw_only=True)
class Fixed:
    """A film in the fixed ladder, by both; the lists by round."""

    suite: list[Cost] = field(default_factory=list)
    plain_s: list[float] = field(default_factory=list)
    plain_wall_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Playable:
    """How soon after its upload's end a film plays."""

    seconds: int
    playable_s: float
    #: From its hand-out to its end, the first chunk in H.264.
    chunk_s: float

    @property
    def times(self) -> float:
        """In encodes of a chunk."""
        return self.playable_s / self.chunk_s


@asynccontextmanager
async def operator(suite: SuiteProcess, folder: Path) -> AsyncIterator[Kino]:
    """A connection as the first operator of a new suite."""
    async with connect(suite.url, CredentialFile(folder / f"{suite.data_dir.name}.json")) as kino:
        claim = identity_pb2.ClaimOperatorRequest(
            claim_token=suite.claim_token or "",
            email="bench@example.org",
            password="only for benches",
            display_name="Bench",
        )
        kino.keep((await kino.stub(IdentityServiceStub).ClaimOperator(claim)).session)
        yield kino


async def fixed_ladder(folder: Path, rounds: int, quick: bool) -> list[Row]:
    """Costs and wall time of two workers against the plain process."""
    films = []
    for clip in CLIPS:
        if clip.name in _FIXED_FILMS:
            again, seconds = _FIXED_FILMS[clip.name]
            clip = replace(clip, again=again, seconds=QUICK_SECONDS if quick else seconds)
            films.append(await prepared(clip, folder))
    found = [Fixed() for _ in films]
    with running_suite(folder / "fixed", workers=WORKERS, env=FIXED) as suite:
        async with operator(suite, folder) as kino:
            for film, result in zip(films, found, strict=True):
                for _ in range(rounds):
                    await _plain(film, result)
                    result.suite.append(await through_suite(film, kino, suite))
                print(f"{film.name}: {result}", file=sys.stderr)
    return list(_fixed_rows(found))


def _fixed_rows(found: Sequence[Fixed]) -> Iterator[Row]:
    both = [[cost.services_s + cost.encoders_s for cost in one.suite] for one in found]
    services = [[cost.services_s for cost in one.suite] for one in found]
    plain = [one.plain_s for one in found]
    yield _against("scheduler and encoders, processor seconds", both, plain, "<=1.05")
    yield _against("of which the services' process", services, plain, None)
    whole = [[cost.wall_s for cost in one.suite] for one in found]
    encodes = [[cost.encodes_wall_s for cost in one.suite] for one in found]
    plain = [one.plain_wall_s for one in found]
    yield _against("2 workers, from job to complete", whole, plain, "<=1.05")
    yield _against("2 workers, from first to last encode", encodes, plain, None)


def _seconds(moment: Timestamp) -> float:
    return moment.ToNanoseconds() / 1e9


def _against(
    name: str, ours: Sequence[Sequence[float]], plain: Sequence[Sequence[float]], goal: str | None
) -> Row:
    ratios = [median(a) / median(b) for a, b in zip(ours, plain, strict=True)]
    return Row(
        name=name,
        value=sum(map(median, ours)),
        unit="s",
        peer="one plain FFmpeg process",
        ratio=median(ratios),
        goal=goal,
    )


async def _plain(film: Prepared, result: Fixed) -> None:
    """As one would type it: as many threads as FFmpeg and x264 like."""
    rungs = rungs_of(plan_ladder(film.found.report, ("h264",)))[VideoCodec.H264]
    ours, threads = film.plain_command(rungs), ("threads=1:lookahead-threads=1", "threads=auto")
    argv = [word.replace(*threads) for word in ours]
    for option in ("-threads", "-filter_complex_threads"):
        while option in argv:
            del argv[(at := argv.index(option)) : at + 2]
    cpu, begun = Cpu(), time.monotonic()
    await run_plain([*NICE, *argv], len(rungs))
    result.plain_wall_s.append(time.monotonic() - begun)
    result.plain_s.append(cpu.children_s)


async def through_suite(film: Prepared, kino: Kino, suite: SuiteProcess) -> Cost:
    """Upload a film and wait until it is complete."""
    uploaded = await upload(
        kino, film.path, title=catalog.Title(display_name=film.name), progress=lambda sent, size: None
    )
    before = _spent(suite)
    job = await _ended(kino, uploaded.job)
    services, encoders, whole = (now - then for now, then in zip(_spent(suite), before, strict=True))
    ensure_succeeded(job)
    encodes = await _encodes(kino, job.name)
    first, last = (
        min(_seconds(one.start_time) for one in encodes),
        max(_seconds(one.end_time) for one in encodes),
    )
    return Cost(
        wall_s=_seconds(job.end_time) - _seconds(job.create_time),
        encodes_wall_s=last - first,
        services_s=services,
        encoders_s=encoders,
        whole_s=whole,
    )


async def _ended(kino: Kino, name: str) -> scheduler.Job:
    """Asked for now and then: every change that a watcher is told costs the scheduler some queries."""
    stub, request = kino.stub(SchedulerServiceStub), scheduler_pb2.GetJobRequest(name=name)
    while not (job := (await stub.GetJob(request)).job).HasField("end_time"):  # noqa: ASYNC110
        await asyncio.sleep(_ASK_EVERY_S)
    return job


def _spent(suite: SuiteProcess) -> tuple[float, float, float]:
    """Processor seconds so far: the services' own process, the encoders with all they ran, everything."""
    services = encoders = whole = 0.0
    for process in suite.tree():
        words, times = process.cmdline(), process.cpu_times()
        own, ended = times.user + times.system, times.children_user + times.children_system
        whole += own + ended
        if "up" in words:
            services += own
        elif "encoder" in words:
            encoders += own + ended
    return services, encoders, whole


async def _encodes(kino: Kino, job: str) -> list[scheduler.Attempt]:
    """The last tries of all encodes of H.264."""
    request = scheduler_pb2.ExplainJobRequest(name=job, page_size=1000)
    answer = await kino.stub(SchedulerServiceStub).ExplainJob(request)
    found = [task for task in answer.tasks if "/tasks/video-h264-" in task.task and task.attempts]
    return [task.attempts[-1] for task in sorted(found, key=lambda task: task.task)]


async def playable(folder: Path, quick: bool) -> list[Row]:
    """Films of some lengths in the default configuration, each cancelled once it plays."""
    (clip,) = [clip for clip in CLIPS if clip.name == _PLAYABLE_FILM]
    found = []
    with running_suite(folder / "playable", workers=WORKERS) as suite:
        async with operator(suite, folder) as kino:
            for seconds in _PLAYABLE_SECONDS[:2] if quick else _PLAYABLE_SECONDS:
                film = folder / f"{seconds}.mp4"
                again = ["-stream_loop", str(seconds // 30 - 1)]
                transform(clip.path(), film, again, ["-c", "copy"])
                found.append(await _until_playable(kino, film, seconds))
                print(found[-1], file=sys.stderr)
    rows = [
        Row(
            name=f"upload's end to playable, {one.seconds} s film",
            value=one.playable_s,
            unit="s",
            peer="the encode of one chunk",
            ratio=one.times,
            goal="<=3",
        )
        for one in found
    ]
    growth = found[-1].times / found[0].times
    return [*rows, Row(name="the longest film's multiple over the shortest's", value=growth, unit="x")]


async def _until_playable(kino: Kino, film: Path, seconds: int) -> Playable:
    ended_s = 0.0

    def sent(done: int, size: int) -> None:
        nonlocal ended_s
        if done == size:
            ended_s = time.time()

    uploaded = await upload(kino, film, title=catalog.Title(display_name=film.name), progress=sent)
    stub = kino.stub(SchedulerServiceStub)
    job = scheduler.Job()
    async for answer in stub.WatchJob(scheduler_pb2.WatchJobRequest(name=uploaded.job)):
        job = answer.job
        if job.HasField("playable_time"):
            break
    first = (await _encodes(kino, uploaded.job))[0]
    await stub.CancelJob(scheduler_pb2.CancelJobRequest(name=uploaded.job))
    return Playable(
        seconds=seconds,
        playable_s=_seconds(job.playable_time) - ended_s,
        chunk_s=_seconds(first.end_time) - _seconds(first.start_time),
    )
