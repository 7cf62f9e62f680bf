from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import resources_pb2 as source
from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.runtime.app import Running
from services.runtime.status import error_of
from services.runtime.testing import channel_of, service_token, serving, settings_in, user_token
from services.scheduler.bootstrap import build
from services.scheduler.store_sql import SqlStore
from tests.engines.postgres import Postgres
from tests.integration.scheduler.fakes import (
    LEFT_OUT,
    Catalog,
    Preprocessor,
    Refused,
    Worker,
    catalog_build,
    preprocessor_build,
)
from tests.support.databases import DIALECTS

TITLE = "titles/film"
OWNER = "users/ann"


@dataclass(kw_only=True)
class World:
    process: Running
    catalog: Catalog
    channel: Any
    stub: SchedulerServiceStub

    def worker(self, **options: Any) -> Worker:
        return Worker(channel=self.channel, objects=self.process.context.objects, **options)

    async def create(self, job_id: str = "j1", title: str = TITLE, **options: Any) -> scheduler.Job:
        request = api.CreateJobRequest(
            job_id=job_id,
            title=title,
            owner=OWNER,
            source=source.Source(object_key="sources/u1", size_bytes=10, sha256=bytes(32)),
            **options,
        )
        return (await self.stub.CreateJob(request)).job

    async def end_of(self, job_id: str = "j1") -> scheduler.Job:
        job = scheduler.Job()
        async for answer in self.stub.WatchJob(api.WatchJobRequest(name=f"jobs/{job_id}")):
            job = answer.job
        return job

    async def explain(self, job_id: str = "j1") -> list[scheduler.TaskExplanation]:
        return list((await self.stub.ExplainJob(api.ExplainJobRequest(name=f"jobs/{job_id}"))).tasks)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a world keeps what it must not forget."""

    folder: Path
    #: Databases by name; those of the folder where there are none.
    urls: Mapping[str, str]


@pytest.fixture(params=DIALECTS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(folder=tmp_path, urls={})
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    databases = {name: postgres.new_database() for name in ("scheduler", "workflows")}
    yield Place(folder=tmp_path, urls={name: postgres.url(found) for name, found in databases.items()})
    for database in databases.values():
        postgres.drop_database(database)


@asynccontextmanager
async def world(place: Place, catalog: Catalog | None = None) -> AsyncIterator[World]:
    catalog = catalog or Catalog()
    parts: dict[str, Any] = {
        "catalog": catalog_build(catalog),
        "preprocessor": preprocessor_build(Preprocessor()),
        "scheduler": build,
    }
    async with (
        serving(place.folder, settings=settings_in(place.folder, sql_urls=place.urls), **parts) as process,
        channel_of(process, service_token(process, "test")) as channel,
    ):
        yield World(process=process, catalog=catalog, channel=channel, stub=SchedulerServiceStub(channel))


@asynccontextmanager
async def working(*workers: Worker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def objects_of(process: Running) -> list[str]:
    return [entry.key async for entry in process.context.objects.list("media/")]


async def test_the_opening_has_its_sound_before_the_rest_is_analysed(place: Place) -> None:
    async with world(place) as w:

        async def script(worker: Worker, task: scheduler.Task) -> Any:
            if task.name.endswith("analyze-00001"):
                await until(lambda: w.catalog.numbers(TITLE).get("aac-128-und-0") == [0, 1, 2, 3])
                starts = w.catalog.media[TITLE].timeline.segment_start_ticks
                assert list(starts) == [0, 125, 250, 375, 500]
            return await worker.result(task)

        worker = w.worker(seconds=90, script=script)
        async with working(worker):
            await w.create()
            job = await w.end_of()
        assert job.state == scheduler.Job.STATE_SUCCEEDED
        assert w.catalog.numbers(TITLE)["aac-128-und-0"] == list(range(18))
        sounds = [task.encode_audio for task in worker.taken if task.HasField("encode_audio")]
        parts = sorted((s.first_segment, len(s.segment_start_ticks), s.goes_on) for s in sounds)
        assert parts == [(0, 4, True), (4, 8, True), (8, 16, True), (16, 18, False)]


@pytest.mark.parametrize(
    ("seconds", "reason"), [(40, "0 pointsthe title is too short for trials to pay"), (130, "1 points")]
)
async def test_long_titles_are_tried_before_their_ladder_is_chosen(
    place: Place, seconds: int, reason: str
) -> None:
    async with world(place) as w:
        worker = w.worker(seconds=seconds)
        async with working(worker):
            await w.create()
            job = await w.end_of()
        assert (job.state, job.ladder.reason) == (scheduler.Job.STATE_SUCCEEDED, reason)
        trials = [task.trial for task in worker.taken if task.HasField("trial")]
        assert len({trial.excerpts[0].start_ticks for trial in trials}) == 4 * (seconds > 120)
        for trial in trials:
            assert [rung.rendition_id for rung in trial.sizes] == ["h264-720", "h264-480"]
            assert len(trial.excerpts) == 1


async def test_the_opening_is_analysed_while_sizes_are_tried(place: Place) -> None:
    async with world(place) as w:

        async def script(worker: Worker, task: scheduler.Task) -> Any:
            if task.HasField("trial"):
                await until(lambda: any(one.HasField("analyze") for one in worker.taken))
            return await worker.result(task)

        worker = w.worker(seconds=130, slots=5, script=script)
        async with working(worker):
            await w.create()
            job = await w.end_of()
        assert job.state == scheduler.Job.STATE_SUCCEEDED


async def test_a_job_publishes_every_segment_of_every_rendition_once(place: Place) -> None:
    async with world(place) as w:
        worker = w.worker(seconds=40)
        async with working(worker):
            await w.create()
            job = await w.end_of()
        assert job.state == scheduler.Job.STATE_SUCCEEDED
        assert (job.progress, job.task_count, job.done_task_count) == (1.0, 22, 22)
        whole = list(range(8))
        renditions = ("h264-720", "h264-480", "av1-480", "aac-128-und-0")
        assert w.catalog.numbers(TITLE) == dict.fromkeys(renditions, whole)
        assert sorted(p[:2] for p in w.catalog.publications) == sorted(
            (r, n) for r in renditions for n in whole
        )
        assert job.renditions == [
            scheduler.RenditionProgress(
                rendition_id=r, published_segment_count=8, planned_segment_count=8, progress=1.0
            )
            for r in renditions
        ]
        assert job.HasField("playable_time")
        assert job.report.container == "mov"
        assert list(job.report.steps) == [LEFT_OUT]
        assert list(job.report.treatments) == [LEFT_OUT.reason]
        assert worker.most_at_once <= 2
        timeline = w.catalog.media[TITLE].timeline
        assert (list(timeline.segment_start_ticks), timeline.planned) == (list(range(0, 1000, 125)), True)


async def test_the_opening_then_highlights_then_h264_then_av1_are_handed_out(place: Place) -> None:
    async with world(place) as w:
        worker = w.worker(seconds=40, slots=1)
        given = media.Highlight(start_offset=Duration(seconds=31), end_offset=Duration(seconds=32))
        await w.create(highlights=[given])
        async with working(worker):
            await w.end_of()
        ids = [task.name.rpartition("/")[2] for task in worker.taken]
        assert ids[:2] == ["probe", "analyze-00000"]
        rest = [i for i in ids if i.startswith("video") and i[-6:] not in ("000000", "000001")]
        assert rest == [
            "video-h264-000006",
            "video-av1-000006",
            *[f"video-h264-{n:06d}" for n in (2, 3, 4, 5, 7)],
            *[f"video-av1-{n:06d}" for n in (2, 3, 4, 5, 7)],
        ]


async def test_a_poison_chunk_fails_its_job_in_words_and_another_job_goes_on(place: Place) -> None:
    async def script(worker: Worker, task: scheduler.Task) -> Any:
        if task.name == "jobs/bad/tasks/video-h264-000003":
            raise Refused(3, "The picture at 15.2 s cannot be decoded.")
        return await worker.result(task)

    async with world(place) as w:
        await w.create("bad", "titles/bad")
        await w.create("good", "titles/good")
        async with working(w.worker(script=script)):
            bad, good = await asyncio.gather(w.end_of("bad"), w.end_of("good"))
        assert good.state == scheduler.Job.STATE_SUCCEEDED
        assert bad.state == scheduler.Job.STATE_FAILED
        assert bad.error.message == (
            "Encoding 0:15.0 to 0:20.0 (chunk 3) in H.264 failed after 1 attempt: "
            "The picture at 15.2 s cannot be decoded. The rest of the title is done."
        )
        assert w.catalog.numbers("titles/bad")["av1-480"] == list(range(8))
        first = (await w.explain("bad"))[0]
        assert (first.state, first.attempts[0].command, list(first.attempts[0].stderr_lines)) == (
            scheduler.TaskExplanation.STATE_FAILED,
            "ffmpeg -i x",
            ["bad"],
        )


async def test_a_canceled_job_stops_its_workers_and_leaves_only_what_was_published(place: Place) -> None:
    hanging = asyncio.Event()

    async def script(worker: Worker, task: scheduler.Task) -> Any:
        result = await worker.result(task)
        if task.name.endswith("video-h264-000004"):
            hanging.set()
            await asyncio.Event().wait()
        return result

    async with world(place) as w:
        worker = w.worker(script=script)
        async with working(worker):
            await w.create()
            await hanging.wait()
            await w.stub.CancelJob(api.CancelJobRequest(name="jobs/j1"))
            job = await w.end_of()
            again = (await w.stub.CancelJob(api.CancelJobRequest(name="jobs/j1"))).job
            await until(lambda: TITLE in w.catalog.failures)
            await closed(w)
        assert (job.state, again.state) == (scheduler.Job.STATE_CANCELED, scheduler.Job.STATE_CANCELED)
        assert "jobs/j1/tasks/video-h264-000004" in worker.stopped
        published = {key for _, _, key in w.catalog.publications}
        inits = {r.init_object_key for r in w.catalog.media[TITLE].renditions if r.init_object_key}
        extras = {track.object_key for track in w.catalog.media[TITLE].extras.text_tracks}
        assert set(await objects_of(w.process)) == published | inits | extras


@pytest.mark.parametrize("canceled", [False, True])
async def test_a_retried_job_completes_without_doing_again_what_was_done(
    place: Place, canceled: bool
) -> None:
    broken, reached = True, asyncio.Event()

    async def script(worker: Worker, task: scheduler.Task) -> Any:
        if broken and task.name == "jobs/j1/tasks/video-h264-000003":
            reached.set()
            if canceled:
                await asyncio.Event().wait()
            raise Refused(3, "It cannot be decoded.")
        return await worker.result(task)

    async with world(place) as w:
        worker = w.worker(script=script)
        async with working(worker):
            await w.create()
            await reached.wait()
            if canceled:
                await w.stub.CancelJob(api.CancelJobRequest(name="jobs/j1"))
            await w.end_of()
            await closed(w)
            broken = False
            before = [task.name for task in worker.taken]
            await w.stub.RetryJob(api.RetryJobRequest(name="jobs/j1"))
            job = await w.end_of()
            again = [task.name for task in worker.taken[len(before) :]]
        assert (job.state, job.failed_task_count) == (scheduler.Job.STATE_SUCCEEDED, 0)
        assert "jobs/j1/tasks/video-h264-000003" in again
        assert "jobs/j1/tasks/probe" not in again
        assert canceled or again == ["jobs/j1/tasks/video-h264-000003"]
        assert w.catalog.numbers(TITLE)["h264-720"] == list(range(8))
        assert len(w.catalog.publications) == len({p[:2] for p in w.catalog.publications})


async def test_a_paused_job_stands_still_and_goes_on_when_it_is_resumed(place: Place) -> None:
    async with world(place) as w:
        await w.create()
        paused = (await w.stub.PauseJob(api.PauseJobRequest(name="jobs/j1"))).job
        async with working(w.worker()):
            await w.create("j2", "titles/other")
            assert (await w.end_of("j2")).state == scheduler.Job.STATE_SUCCEEDED
            still = (await w.stub.GetJob(api.GetJobRequest(name="jobs/j1"))).job
            await w.stub.ResumeJob(api.ResumeJobRequest(name="jobs/j1"))
            assert (await w.end_of()).state == scheduler.Job.STATE_SUCCEEDED
        assert (paused.state, still.state) == (scheduler.Job.STATE_PAUSED, scheduler.Job.STATE_PAUSED)
        assert still.done_task_count == 0


async def test_only_an_operator_makes_a_job_urgent(place: Place) -> None:
    async with world(place) as w:
        await w.create()
        answers: list[object] = []
        for user, role in (("users/ann", "publisher"), ("users/op", "operator")):
            async with channel_of(w.process, user_token(w.process, user, role)) as channel:
                for priority in (scheduler.Job.PRIORITY_LOW, scheduler.Job.PRIORITY_URGENT):
                    request = api.PrioritizeJobRequest(name="jobs/j1", priority=priority)
                    try:
                        answer = await SchedulerServiceStub(channel).PrioritizeJob(request)
                        answers.append(answer.job.priority == priority)
                    except grpc.aio.AioRpcError as error:
                        answers.append(error.code())
        assert answers == [True, grpc.StatusCode.PERMISSION_DENIED, True, True]


async def test_a_job_says_when_it_should_be_done_once_anything_was_measured(place: Place) -> None:
    async with world(place) as w:
        async with working(w.worker()):
            await w.create()
            first = await w.end_of()
            store = SqlStore(w.process.context.database("scheduler"))
            needs = {"ANALYZE/0", "ENCODE_VIDEO/1", "ENCODE_VIDEO/2"}
            while not needs <= (await store.costs()).keys():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await w.create("j2", "titles/other")
            second = await w.end_of("j2")
        assert not first.HasField("predicted_end_time")
        moments = [
            second.create_time,
            second.predicted_playable_time,
            second.predicted_end_time,
        ]
        assert [m.ToNanoseconds() for m in moments] == sorted(m.ToNanoseconds() for m in moments)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 -- what is awaited tells nobody when it changes
        await asyncio.sleep(0.01)


async def closed(w: World) -> None:
    store = SqlStore(w.process.context.database("scheduler"))
    while await store.unfinished_jobs():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_repeated_create_answers_the_same_job(place: Place) -> None:
    async with world(place) as w:
        first, second = await w.create(), await w.create()
        assert (second.name, second.create_time) == (first.name, first.create_time)
        listed = await w.stub.ListJobs(api.ListJobsRequest())
        assert [job.name for job in listed.jobs] == ["jobs/j1"]


@pytest.mark.parametrize("restart", [False, True])
async def test_results_wait_for_a_catalogue_that_is_down(place: Place, restart: bool) -> None:
    catalog = Catalog()
    catalog.down = True
    async with world(place, catalog) as w:
        worker = w.worker()
        async with working(worker):
            await w.create()
            await until(lambda: len(worker.settled) == 22)
            assert catalog.publications == []
            if not restart:
                catalog.down = False
                assert (await w.end_of()).state == scheduler.Job.STATE_SUCCEEDED
    if restart:
        catalog.down = False
        async with world(place, catalog) as w:
            assert (await w.end_of()).state == scheduler.Job.STATE_SUCCEEDED
    assert len(catalog.publications) == 32


async def test_only_owner_and_operator_see_a_job(place: Place) -> None:
    async with world(place) as w:
        await w.create()
        seen: dict[str, tuple[grpc.StatusCode, int]] = {}
        for user, role in (("users/ann", "publisher"), ("users/bob", "publisher"), ("users/op", "operator")):
            async with channel_of(w.process, user_token(w.process, user, role)) as channel:
                stub = SchedulerServiceStub(channel)
                try:
                    await stub.GetJob(api.GetJobRequest(name="jobs/j1"))
                    code = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                seen[user] = (code, len((await stub.ListJobs(api.ListJobsRequest())).jobs))
        assert seen == {
            "users/ann": (grpc.StatusCode.OK, 1),
            "users/bob": (grpc.StatusCode.PERMISSION_DENIED, 0),
            "users/op": (grpc.StatusCode.OK, 1),
        }


async def test_workers_are_listed_with_their_tasks_and_remembered_when_gone(place: Place) -> None:
    begun = asyncio.Event()

    async def script(worker: Worker, task: scheduler.Task) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async def listed() -> list[tuple[str, int, bool, list[str]]]:
        workers = (await w.stub.ListWorkers(api.ListWorkersRequest())).workers
        return [(x.name, x.slot_count, x.connected, list(x.tasks)) for x in workers]

    async with world(place) as w:
        await w.create()
        async with working(w.worker(script=script)):
            await begun.wait()
            assert await listed() == [("workers/w1", 2, True, ["jobs/j1/tasks/probe"])]
        while (gone := await listed())[0][2]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert gone == [("workers/w1", 2, False, ["jobs/j1/tasks/probe"])]


async def test_a_watcher_is_told_the_end_of_a_job_that_ended_before(place: Place) -> None:
    async with world(place) as w:
        await w.create()
        await w.stub.CancelJob(api.CancelJobRequest(name="jobs/j1"))
        answers = [a.job.state async for a in w.stub.WatchJob(api.WatchJobRequest(name="jobs/j1"))]
        assert answers == [scheduler.Job.STATE_CANCELED]


async def test_a_stream_that_does_not_introduce_itself_is_refused(place: Place) -> None:
    async with world(place) as w:

        async def words() -> AsyncIterator[api.WorkRequest]:
            yield api.WorkRequest(progress=api.Progress(task="jobs/j1/tasks/probe", fence=1))

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in w.stub.Work(words()):
                pass
        assert error_of(raised.value).reason == "HELLO_MISSING"
