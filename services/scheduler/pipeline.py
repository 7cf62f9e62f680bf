"""The steps from a source to a complete title. Each may run again after a crash, and changes nothing then.

Every step answers whether the job goes on; one that fails for good ends the job with the reason, and
`finish` is always the last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from kino.preprocessor.v1 import preprocessor_pb2 as preprocessor_api
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from kino.scheduler.v1 import resources_pb2 as scheduler
from services.media.messages import timeline_of
from services.runtime.clock import Clock
from services.runtime.errors import Code, KinoError
from services.runtime.logs import logger
from services.scheduler import plan, trials
from services.scheduler.dispatch import Dispatcher
from services.scheduler.model import (
    LEASE,
    Chunk,
    Failure,
    Job,
    JobState,
    NewTask,
    Tier,
    Work,
    end_by,
    predicted,
    summed_up,
    tier_of,
)
from services.scheduler.publish import SegmentPublisher
from services.scheduler.remote import failure_of_error, passes, patiently, through_outages
from services.scheduler.signals import Signals
from services.scheduler.store import Store
from services.scheduler.wire import status_of_failure

T = TypeVar("T")

_log = logger("scheduler")
_CANCELED = Failure(code=Code.CANCELLED, reason="JOB_CANCELED", message="Processing was cancelled.")


class _JobOver(Exception):
    """The job has ended meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """Whom the pipeline asks."""

    catalog: CatalogServiceStub
    preprocessor: PreprocessorServiceStub


class Pipeline:
    """The steps; the order they are taken in is the workflow's."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        dispatcher: Dispatcher,
        publisher: SegmentPublisher,
        services: Services,
        clock: Clock,
    ) -> None:
        self._store = store
        self._signals = signals
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._services = services
        self._clock = clock

    async def begin(self, job_id: str) -> bool:
        """Say that the title is being processed, and have the source read."""
        return await self._step(job_id, self._begin)

    async def plan(self, job_id: str) -> int:
        """Once the source is read: plan. The number of windows; 0 when the job is over."""
        windows: list[preprocessor_api.Window] = []

        async def work(job: Job) -> None:
            windows[:] = await self._plan(job)

        return len(windows) if await self._step(job_id, work) else 0

    async def extend(self, job_id: str, window: int) -> bool:
        """Once a window is analysed: extend the grid, hand out its chunks and the next window."""
        return await self._step(job_id, partial(self._extend, window))

    async def add_audio(self, job_id: str) -> bool:
        """Once the grid is whole: hand out the rest of the sound tracks."""
        return await self._step(job_id, self._add_audio)

    async def wait_all(self, job_id: str) -> bool:
        """Wait until every task is done."""
        return await self._step(job_id, self._wait_all)

    async def finish(self, job_id: str) -> str:
        """End the job in whatever state, tell the catalogue, and remove what wasn't published. The state."""
        return await through_outages(partial(self._finish, job_id))

    async def _finish(self, job_id: str) -> str:
        failure = summed_up(await self._store.given_up(job_id))
        state = JobState.FAILED if failure else JobState.SUCCEEDED
        await self._store.end_job(job_id, state, failure, self._clock.now())
        self._signals.changed(job_id)
        job = await self._store.job(job_id)
        try:
            if job.state is not JobState.SUCCEEDED:
                await self._fail_media(job, job.failure or _CANCELED)
            await self._publisher.collect_orphans(job_id)
        except Exception as error:
            if passes(error):
                raise
            _log.error("clearing up failed", job=job.name, exc_info=error)
        await self._store.close_job(job_id)
        return job.state.value

    async def _step(self, job_id: str, work: Callable[[Job], Awaitable[None]]) -> bool:
        return await through_outages(partial(self._once, job_id, work))

    async def _once(self, job_id: str, work: Callable[[Job], Awaitable[None]]) -> bool:
        try:
            job = await self._store.job(job_id)
            if job.state.ended:
                return False
            await work(job)
        except _JobOver:
            return False
        except Exception as error:
            if passes(error):
                raise
            if not isinstance(error, KinoError):
                _log.error("step failed", job=job_id, exc_info=error)
            state, failure = end_by(failure_of_error(error))
            ended = await self._store.end_job(job_id, state, failure, self._clock.now())
            self._dispatcher.stop(ended.stopped, failure.message)
            self._signals.changed(job_id)
            return False
        self._signals.changed(job_id)
        return True

    async def _begin(self, job: Job) -> None:
        if not await self._store.start_job(job.job_id):
            raise _JobOver
        begun = await self._ask(
            job, self._services.catalog.BeginMedia, catalog.BeginMediaRequest(title=job.title, job=job.name)
        )
        await self._publisher.end_replaced(job, [begun.current_job])
        await self._store.add_tasks(job.job_id, [plan.probe_task(job)])
        self._dispatcher.wake()

    async def _plan(self, job: Job) -> Sequence[preprocessor_api.Window]:
        probe = preprocessor.ProbeResult.FromString(await self._result(job, plan.PROBE_ID))
        asks = self._services.preprocessor
        windows = await self._ask(
            job, asks.PlanWindows, preprocessor_api.PlanWindowsRequest(timeline=probe.timeline)
        )
        frames = timeline_of(probe.timeline).frame_count
        # The opening is analysed while sizes are tried; such tasks are completed by the stored timeline.
        await self._store.set_probe(job.job_id, probe.SerializeToString(), job.ladder, frames)
        await self._add_window(job, probe, 0, windows.windows, first_chunk=0)
        ladder = media.Ladder.FromString(job.ladder)
        if not job.ladder:  # one that is retried keeps its own
            ladder = await self._ladder(job, probe)
        await self._ask(
            job,
            self._services.catalog.BeginMedia,
            catalog.BeginMediaRequest(
                title=job.title,
                job=job.name,
                timeline=probe.timeline,
                renditions=plan.renditions_of(ladder, probe.report),
            ),
        )
        await self._store.set_probe(job.job_id, probe.SerializeToString(), ladder.SerializeToString(), frames)
        return windows.windows

    async def _ladder(self, job: Job, probe: preprocessor.ProbeResult) -> media.Ladder:
        """The renditions to make, chosen by trial encodes where these pay."""
        ask = partial(self._ask, job, self._services.preprocessor.PlanLadder)
        request = preprocessor_api.PlanLadderRequest(report=probe.report)
        if not trials.worth_a_trial(probe):
            request.problem = "the title is too short for trials to pay"
            return (await ask(request)).ladder
        tasks = trials.trial_tasks(job, probe, (await ask(request)).ladder)
        if not await self._store.add_tasks(job.job_id, tasks):
            raise _JobOver
        self._dispatcher.wake()
        tried = trials.joined([await self._result(job, task.task_id) for task in tasks])
        request.points.extend(tried.points)
        request.problem = tried.problem
        return (await ask(request)).ladder

    async def _extend(self, window: int, job: Job) -> None:
        result = preprocessor.AnalyzeResult.FromString(await self._result(job, plan.analyze_id(window)))
        probe = preprocessor.ProbeResult.FromString(job.probe)
        windows = await self._ask(
            job,
            self._services.preprocessor.PlanWindows,
            preprocessor_api.PlanWindowsRequest(timeline=probe.timeline),
        )
        new = plan.chunks_of(result)
        known = await self._store.chunks(job.job_id)
        if known and known[-1].number > new[-1].number:
            return  # a job that is retried has been here before, and further on
        earlier = [chunk for chunk in known if chunk.number < new[0].number]
        grid = [*earlier, *new]
        last = window + 1 == len(windows.windows)
        if not last:
            await self._add_window(job, probe, window + 1, windows.windows, first_chunk=len(grid))
        highlights = await self._highlights(job, probe, window)
        await self._ask(
            job,
            self._services.catalog.ExtendTimeline,
            catalog.ExtendTimelineRequest(
                title=job.title,
                job=job.name,
                # A window's end is a cut whatever the next one shows: what ends there needn't wait for it.
                segment_start_ticks=[
                    *(chunk.start_ticks for chunk in grid),
                    *([] if last else [grid[-1].end_ticks]),
                ],
                planned=last,
                highlights=highlights,
            ),
        )
        await self._hand_out(job, probe, grid, new, highlights, opens=window == 0)
        if not last and plan.sound_due(window + 1):
            await self._add_sound(job, probe, grid, goes_on=True)

    async def _hand_out(
        self,
        job: Job,
        probe: preprocessor.ProbeResult,
        grid: Sequence[Chunk],
        new: Sequence[Chunk],
        highlights: Sequence[media.Highlight],
        *,
        opens: bool,
    ) -> None:
        ladder = media.Ladder.FromString(job.ladder)
        order = plan.video_priorities(ladder, grid, probe.timeline.timescale, highlights)
        tasks = plan.video_tasks(job, probe, ladder, new, order)
        if opens:
            await self._predict(job, tasks)
        known = scheduler.Job(highlights=highlights).SerializeToString()
        if not await self._store.extend(job.job_id, new, tasks, known, order):
            raise _JobOver
        self._dispatcher.wake()

    async def _predict(self, job: Job, tasks: Sequence[NewTask]) -> None:
        """Note when the title should be playable and complete, to be compared with when it is.

        Before `tasks`, the first ones of its pictures, are handed out: workers can be done with all of them
        before anything is stored after that.
        """
        now = self._clock.now()
        slots = sum(w.slot_count for w in await self._store.workers(now - LEASE) if w.connected(now))
        unplanned = dict.fromkeys((task.need for task in tasks), job.frame_count)
        for task in tasks:
            unplanned[task.need] -= task.frames
        # Sound has no frames: it costs little, and the pictures take longer.
        work = [each for each in await self._store.open_work(job.job_id) if each.frames]
        work += [
            Work(need=task.need, opening=tier_of(task.priority) < Tier.ANALYZE, frames=task.frames)
            for task in tasks
        ]
        found = predicted(work, await self._store.costs(), slots, unplanned)
        if found is not None:
            await self._store.predict(job.job_id, now + found[0], now + found[1])

    async def _highlights(
        self, job: Job, probe: preprocessor.ProbeResult, window: int
    ) -> Sequence[media.Highlight]:
        """The best passages of the windows analysed so far."""
        analysed = await self._store.tasks(job.job_id, "analyze-")
        features = [
            feature
            for task in analysed
            if task.task_id <= plan.analyze_id(window)
            for feature in preprocessor.AnalyzeResult.FromString(task.result).features
        ]
        answer = await self._ask(
            job,
            self._services.preprocessor.RankHighlights,
            preprocessor_api.RankHighlightsRequest(
                timescale=probe.timeline.timescale,
                features=features,
                given=scheduler.Job.FromString(job.given).highlights,
            ),
        )
        return answer.highlights

    async def _add_window(
        self,
        job: Job,
        probe: preprocessor.ProbeResult,
        window: int,
        windows: Sequence[preprocessor_api.Window],
        *,
        first_chunk: int,
    ) -> None:
        chosen = windows[window]
        task = plan.analyze_task(job, probe, window, chosen.start_frame, chosen.frame_count, first_chunk)
        if not await self._store.add_tasks(job.job_id, [task]):
            raise _JobOver
        self._dispatcher.wake()

    async def _add_audio(self, job: Job) -> None:
        probe = preprocessor.ProbeResult.FromString(job.probe)
        await self._add_sound(job, probe, await self._store.chunks(job.job_id), goes_on=False)

    async def _add_sound(
        self, job: Job, probe: preprocessor.ProbeResult, grid: Sequence[Chunk], *, goes_on: bool
    ) -> None:
        """Hand out the extras, and the sound of the grid so far from where the track's last task ends."""
        earlier = [
            encoder.EncodeAudioTask.FromString(task.spec)
            for task in await self._store.tasks(job.job_id, plan.AUDIO_PREFIX)
        ]
        ends = [len(spec.segment_start_ticks) for spec in earlier if spec.goes_on]
        first = max((end for end in ends if end < len(grid)), default=0)
        ladder = media.Ladder.FromString(job.ladder)
        tasks = plan.audio_tasks(job, probe, ladder, grid, first_segment=first, goes_on=goes_on)
        if not await self._store.add_tasks(job.job_id, [*tasks, plan.extract_task(job, probe)]):
            raise _JobOver
        self._dispatcher.wake()

    async def _wait_all(self, job: Job) -> None:
        async def done() -> bool:
            return not await self._store.has_open_tasks(job.job_id)

        await self._until(job, done)

    async def _result(self, job: Job, task_id: str) -> bytes:
        """The result of a task, once it is there; empty when it was given up."""

        async def done() -> bool:
            return (await self._store.task(job.job_id, task_id)).state.ended

        await self._until(job, done)
        return (await self._store.task(job.job_id, task_id)).result

    async def _until(self, job: Job, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a change of the job that makes `holds` true. Raises `_JobOver`."""
        with self._signals.watching(job.job_id) as changed:
            while not await holds():
                if not await self._alive(job.job_id):
                    raise _JobOver
                await self._signals.wait(changed)
                changed.clear()
        if not await self._alive(job.job_id):
            raise _JobOver

    async def _alive(self, job_id: str) -> bool:
        return not (await self._store.job(job_id)).state.ended

    async def _ask(self, job: Job, method: Callable[[Any], Awaitable[T]], request: Message) -> T:
        """The answer of another service. Raises `_JobOver`, or `KinoError` when asking again is useless."""
        answer = await patiently(partial(method, request), partial(self._alive, job.job_id))
        if answer is None:
            raise _JobOver
        return answer

    async def _fail_media(self, job: Job, failure: Failure) -> None:
        request = catalog.FailMediaRequest(title=job.title, job=job.name, error=status_of_failure(failure))
        try:
            await patiently(partial(self._services.catalog.FailMedia, request), _always)
        except KinoError as error:
            # The title is gone, or belongs to another job: nobody is left to be told.
            _log.warning("failure not noted", job=job.name, reason=error.reason)


async def _always() -> bool:
    return True
