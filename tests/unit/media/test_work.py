from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from kino.encoder.v1 import resources_pb2 as encoder
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from services.media.errors import EncoderFailed
from services.media.work import Reporter, Result, Worker, creeping

TASK = scheduler.Task(name="jobs/a/tasks/b", fence=7, probe=preprocessor.ProbeTask())
RESULT = preprocessor.ProbeResult(report=preprocessor.SourceReport(container="mp4"))
RENDITION = encoder.EncodedRendition(rendition_id="aac-128-und-0")


class Broken(grpc.aio.AioRpcError):
    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())


class Stream:
    """One open stream, the scheduler's end in the test's hands."""

    def __init__(self, words: AsyncIterator[api.WorkRequest]) -> None:
        self.heard: asyncio.Queue[api.WorkRequest | None] = asyncio.Queue()
        self._said: asyncio.Queue[api.WorkResponse | Exception | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read(words))

    async def _read(self, words: AsyncIterator[api.WorkRequest]) -> None:
        async for word in words:
            self.heard.put_nowait(word)
        self.heard.put_nowait(None)
        self._said.put_nowait(None)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> api.WorkResponse:
        word = await self._said.get()
        if word is None:
            raise StopAsyncIteration
        if isinstance(word, Exception):
            raise word
        return word

    def cancel(self) -> None:
        self._reader.cancel()

    def say(self, **word: Any) -> None:
        self._said.put_nowait(api.WorkResponse(**word))

    def break_off(self) -> None:
        self._said.put_nowait(Broken())

    def welcome(self, *kept: scheduler.Task) -> None:
        welcome = api.Welcome(kept=[api.HeldTask(task=task.name, fence=task.fence) for task in kept])
        welcome.lease_duration.FromTimedelta(timedelta(seconds=20))
        self.say(welcome=welcome)

    async def next(self, kind: str) -> Any:
        """The next word of one kind; progress, which comes at any time, is passed over."""
        while True:
            word = await self.heard.get()
            assert word is not None
            if word.WhichOneof("update") == kind:
                return getattr(word, kind)


class Scheduler:
    def __init__(self) -> None:
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()

    def dial(self, words: AsyncIterator[api.WorkRequest]) -> Stream:
        stream = Stream(words)
        self._streams.put_nowait(stream)
        return stream

    async def stream(self) -> Stream:
        return await self._streams.get()


class Handler:
    """A task whose course the test decides."""

    def __init__(self) -> None:
        self.reporter: asyncio.Future[Reporter] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.cancelled = asyncio.Event()

    async def __call__(self, task: scheduler.Task, reporter: Reporter) -> Result:
        self.reporter.set_result(reporter)
        try:
            return await asyncio.shield(self.outcome)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@asynccontextmanager
async def working(
    handler: Callable[[scheduler.Task, Reporter], Awaitable[Result]],
) -> AsyncIterator[tuple[Scheduler, Worker, asyncio.Task[None]]]:
    far = Scheduler()
    worker = Worker("w1", encoder.Capabilities(core_count=2), 3, {"probe": handler}, far.dial)
    running = asyncio.create_task(worker.run())
    try:
        yield far, worker, running
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_worker_introduces_itself_works_and_reports() -> None:
    handler = Handler()
    async with working(handler) as (far, worker, _):
        stream = await far.stream()
        hello = await stream.next("hello")
        assert hello == api.Hello(
            worker_id="w1", capabilities=encoder.Capabilities(core_count=2), slot_count=3
        )
        stream.welcome()
        stream.say(task=TASK)
        (await handler.reporter).progress(0.5)
        assert await stream.next("progress") == api.Progress(task=TASK.name, fence=7, progress=0.5)
        assert [(one.task, one.fence, one.progress) for one in worker.running()] == [(TASK.name, 7, 0.5)]
        handler.outcome.set_result(RESULT)
        assert await stream.next("done") == api.TaskDone(task=TASK.name, fence=7, probe=RESULT)
        assert worker.running() == []


async def test_a_task_goes_on_through_a_broken_stream_and_is_named_with_its_fence() -> None:
    handler = Handler()
    async with working(handler) as (far, _, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        (await handler.reporter).segments(RENDITION)
        await stream.next("segments_ready")
        stream.break_off()
        again = await far.stream()
        assert list((await again.next("hello")).held) == [api.HeldTask(task=TASK.name, fence=7)]
        again.welcome(TASK)
        # What may have been lost with the stream is said again.
        assert (await again.next("segments_ready")).rendition == RENDITION
        handler.outcome.set_result(RESULT)
        assert (await again.next("done")).fence == 7


async def test_a_result_that_nobody_heard_is_kept_until_it_is_settled() -> None:
    handler = Handler()
    async with working(handler) as (far, _, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        await handler.reporter
        handler.outcome.set_result(RESULT)
        await stream.next("done")
        stream.break_off()
        again = await far.stream()
        assert len((await again.next("hello")).held) == 1
        again.welcome(TASK)
        assert (await again.next("done")).probe == RESULT
        again.say(settled=api.Settled(task=TASK.name, fence=7, accepted=True))
        again.break_off()
        third = await far.stream()
        assert list((await third.next("hello")).held) == []


async def test_what_the_scheduler_no_longer_grants_is_stopped() -> None:
    handler = Handler()
    async with working(handler) as (far, worker, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        await handler.reporter
        stream.break_off()
        again = await far.stream()
        again.welcome()
        await handler.cancelled.wait()
        assert worker.running() == []


async def test_a_stopped_task_is_cancelled_and_never_reported() -> None:
    first, second = Handler(), Handler()
    handlers = iter((first, second))

    async def either(task: scheduler.Task, reporter: Reporter) -> Result:
        return await next(handlers)(task, reporter)

    async with working(either) as (far, _, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        await first.reporter
        stream.say(stop=api.StopTask(task=TASK.name, fence=7, reason="cancelled"))
        await first.cancelled.wait()
        other = scheduler.Task(name="jobs/a/tasks/c", fence=1, probe=preprocessor.ProbeTask())
        stream.say(task=other)
        second.outcome.set_result(RESULT)
        assert (await stream.next("done")).task == other.name


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_failure_carries_its_reason_its_command_and_its_last_words(at_once: bool) -> None:
    error = EncoderFailed(exit_code=8, stderr="one\ntwo", command="ffmpeg -i fd:")
    handler = Handler()
    async with working(handler) as (far, _, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        await handler.reporter
        handler.outcome.set_exception(
            ExceptionGroup("at once", [error, ValueError("after it")]) if at_once else error
        )
        failed = await stream.next("failed")
        assert (failed.command, list(failed.stderr_lines)) == ("ffmpeg -i fd:", ["one", "two"])
        assert "ENCODER_FAILED" in str(failed.error.details[0])


async def test_an_unforeseen_error_says_nothing_of_itself() -> None:
    handler = Handler()
    async with working(handler) as (far, _, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        await handler.reporter
        handler.outcome.set_exception(RuntimeError("a secret"))
        failed = await stream.next("failed")
        assert failed.error.code == grpc.StatusCode.INTERNAL.value[0]
        assert "secret" not in str(failed)


async def test_an_unknown_task_fails_and_leaves_the_worker_working() -> None:
    handler = Handler()
    async with working(handler) as (far, _, _):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=scheduler.Task(name="jobs/a/tasks/x", fence=1, analyze=preprocessor.AnalyzeTask()))
        assert "UNKNOWN_TASK" in str((await stream.next("failed")).error.details[0])
        stream.say(task=TASK)
        await handler.reporter


async def test_a_worker_that_is_stopped_gives_its_tasks_back_and_ends_them() -> None:
    handler = Handler()
    async with working(handler) as (far, _, running):
        stream = await far.stream()
        stream.welcome()
        stream.say(task=TASK)
        await handler.reporter
        running.cancel()
        failed = await stream.next("failed")
        assert failed.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert "WORKER_STOPPING" in str(failed.error.details[0])
        await handler.cancelled.wait()


async def test_work_that_cannot_say_how_far_it_is_creeps_on_without_ever_being_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.media.work.CREEP_S", 0.0)
    heard: list[float] = []
    enough = asyncio.Event()

    class Listener:
        def progress(self, share: float) -> None:
            heard.append(share)
            if len(heard) == 500:
                enough.set()

        def segments(self, rendition: encoder.EncodedRendition) -> None:
            raise AssertionError

    async with creeping(Listener()):
        await enough.wait()
    count = len(heard)
    await asyncio.sleep(0)
    assert len(heard) == count
    assert heard == sorted(set(heard))
    assert heard[-1] < 1
