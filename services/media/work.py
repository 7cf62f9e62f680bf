"""The worker's side of `SchedulerService.Work`, shared by all who take tasks.

A task goes on while the stream is broken: the worker dials in again, names what it still holds with its
fences, and only stops what the scheduler no longer grants it. Results are kept until the scheduler says that
they are settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import grpc.aio

from kino.encoder.v1 import resources_pb2 as encoder
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from services.media.scratch import TASK
from services.runtime.errors import Internal, KinoError, Unavailable
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.runtime.objects import PATIENCE_S
from services.runtime.status import status_of

_log = logger("worker")
#: A worker speaks at least this often in a lease.
WORDS_PER_LEASE = 4
#: The shortest time between two reports of one task's progress.
PROGRESS_PAUSE_S = 0.25
#: How often work that cannot say how far it is shows that it goes on.
CREEP_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
#: How long the last words may take when a worker stops.
GOODBYE_S = 2.0
#: How long a task waits for an object store that is away, rather than lose its work; below a task's stall.
OBJECTS_PATIENCE_S = 90.0
MAX_STDERR_LINES = 40

Result = (
    preprocessor.ProbeResult
    | preprocessor.AnalyzeResult
    | encoder.EncodeVideoResult
    | encoder.EncodeAudioResult
    | preprocessor.ExtractResult
    | encoder.TrialResult
)


class WorkerStopping(Unavailable):
    """The worker is being stopped; the task goes to another."""

    reason = "WORKER_STOPPING"


class UnknownTask(Internal):
    """This worker does not know how to do a task of the kind {kind}."""

    reason = "UNKNOWN_TASK"


class Reporter(Protocol):
    """What a handler may say while it works."""

    def progress(self, share: float) -> None:
        """How much is done, 0 to 1."""

    def segments(self, rendition: encoder.EncodedRendition) -> None:
        """Segments that are finished before the task is."""


@asynccontextmanager
async def creeping(reporter: Reporter) -> AsyncIterator[None]:
    """For work that cannot say how far it is: progress creeps on, so that it isn't taken for stalled.

    Its children have limits of their own on time and silence.
    """

    async def creep() -> None:
        share = 0.0
        while True:
            await asyncio.sleep(CREEP_S)
            share += (1 - share) / 50
            reporter.progress(share)

    task = asyncio.create_task(creep())
    try:
        yield
    finally:
        task.cancel()


#: Does one task; what it raises is reported as the task's failure.
Handler = Callable[[scheduler.Task, Reporter], Awaitable[Result]]
#: Opens the stream; `SchedulerServiceStub.Work`.
Dial = Callable[[AsyncIterator[api.WorkRequest]], Any]


@dataclass
class _Held:
    """A task under lease here: running, or finished and not settled yet."""

    task: scheduler.Task
    started: datetime
    share: float = 0.0
    work: asyncio.Task[None] | None = None
    #: Every announcement of segments so far, said again after a break: publication is idempotent.
    announced: list[api.WorkRequest] = field(default_factory=list)
    verdict: api.WorkRequest | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.task.name, self.task.fence


class _Reporter:
    """Passes a handler's words on, progress not too often."""

    def __init__(self, held: _Held, say: Callable[[api.WorkRequest], None]) -> None:
        self._held, self._say = held, say
        self._next = 0.0

    def progress(self, share: float) -> None:
        self._held.share = min(max(share, 0.0), 1.0)
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + PROGRESS_PAUSE_S
            self._say(_progress(self._held))

    def segments(self, rendition: encoder.EncodedRendition) -> None:
        name, fence = self._held.key
        word = api.WorkRequest(segments_ready=api.SegmentsReady(task=name, fence=fence, rendition=rendition))
        self._held.announced.append(word)
        self._say(word)


def _progress(held: _Held) -> api.WorkRequest:
    name, fence = held.key
    return api.WorkRequest(progress=api.Progress(task=name, fence=fence, progress=held.share))


def _done(task: scheduler.Task, result: Result) -> api.WorkRequest:
    done = api.TaskDone(task=task.name, fence=task.fence)
    if isinstance(result, preprocessor.ProbeResult):
        done.probe.CopyFrom(result)
    elif isinstance(result, preprocessor.AnalyzeResult):
        done.analyze.CopyFrom(result)
    elif isinstance(result, encoder.EncodeVideoResult):
        done.encode_video.CopyFrom(result)
    elif isinstance(result, preprocessor.ExtractResult):
        done.extract.CopyFrom(result)
    elif isinstance(result, encoder.TrialResult):
        done.trial.CopyFrom(result)
    else:
        done.encode_audio.CopyFrom(result)
    return api.WorkRequest(done=done)


def _cause(error: Exception) -> Exception:
    """The error itself, where it comes out of a group of concurrent work: the first one stopped the rest."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failed(task: scheduler.Task, error: KinoError) -> api.WorkRequest:
    details = dict(error.details)
    stderr = str(details.pop("stderr", "")).splitlines()[-MAX_STDERR_LINES:]
    command = str(details.pop("command", ""))
    # The sentence stays; long texts go where there is room for them.
    error.details = details
    failed = api.TaskFailed(
        task=task.name, fence=task.fence, error=status_of(error), command=command, stderr_lines=stderr
    )
    return api.WorkRequest(failed=failed)


class Worker:
    """Takes as many tasks at a time as it has slots, for as long as `run` runs."""

    def __init__(
        self,
        worker_id: str,
        capabilities: encoder.Capabilities,
        slot_count: int,
        handlers: Mapping[str, Handler],
        dial: Dial,
    ) -> None:
        """`handlers` by the name of the task's `spec` field; `dial` opens the stream."""
        self._id, self._capabilities, self._slots = worker_id, capabilities, slot_count
        self._handlers, self._dial = handlers, dial
        self._held: dict[tuple[str, int], _Held] = {}
        self._outbox: asyncio.Queue[api.WorkRequest | None] | None = None
        self._lease_s = 20.0

    @property
    def worker_id(self) -> str:
        """The worker's id, the same after each reconnection."""
        return self._id

    @property
    def capabilities(self) -> encoder.Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def slot_count(self) -> int:
        """How many tasks it takes at the same time."""
        return self._slots

    def running(self) -> list[encoder.RunningTask]:
        """What it is doing now."""
        tasks = []
        for held in self._held.values():
            if held.verdict is None:
                task = encoder.RunningTask(task=held.task.name, fence=held.task.fence, progress=held.share)
                task.start_time.FromDatetime(held.started)
                tasks.append(task)
        return tasks

    async def run(self) -> None:
        """Works until cancelled; then ends its children, gives its tasks back and hangs up."""
        wait_s = FIRST_WAIT_S
        try:
            while True:
                try:
                    await self._converse()
                    wait_s = FIRST_WAIT_S
                except grpc.aio.AioRpcError as error:
                    _log.warning("scheduler out of reach", code=error.code().name, retry_s=wait_s)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        finally:
            await self._abandon(list(self._held.values()))

    async def _converse(self) -> None:
        """One stream, until it ends or breaks."""
        outbox: asyncio.Queue[api.WorkRequest | None] = asyncio.Queue()
        outbox.put_nowait(self._hello())
        call = self._dial(_words(outbox))
        heart: asyncio.Task[None] | None = None
        try:
            async for response in call:
                if response.HasField("welcome"):
                    await self._welcome(response.welcome, outbox)
                    heart = asyncio.create_task(self._beat(outbox))
                else:
                    self._hear(response)
        except asyncio.CancelledError:
            await self._goodbye(call)
            raise
        finally:
            self._outbox = None
            if heart is not None:
                heart.cancel()
            call.cancel()

    def _hello(self) -> api.WorkRequest:
        held = [api.HeldTask(task=name, fence=fence) for name, fence in self._held]
        return api.WorkRequest(
            hello=api.Hello(
                worker_id=self._id, capabilities=self._capabilities, slot_count=self._slots, held=held
            )
        )

    async def _welcome(self, welcome: api.Welcome, outbox: asyncio.Queue[api.WorkRequest | None]) -> None:
        """Goes on with what is still granted: says again what may have been lost, and stops the rest."""
        self._lease_s = max(welcome.lease_duration.ToTimedelta().total_seconds(), 1.0)
        self._outbox = outbox
        kept = {(held.task, held.fence) for held in welcome.kept}
        await self._abandon([held for key, held in self._held.items() if key not in kept])
        for held in self._held.values():
            for word in (*held.announced, held.verdict or _progress(held)):
                outbox.put_nowait(word)
        _log.info("connected to the scheduler", worker=self._id, kept=len(kept))

    def _hear(self, response: api.WorkResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "task":
            self._begin(response.task)
        elif kind == "stop":
            held = self._held.pop((response.stop.task, response.stop.fence), None)
            if held is not None and held.work is not None:
                _log.info("stopped", task=held.task.name, reason=response.stop.reason)
                held.work.cancel()
        elif kind == "settled":
            self._held.pop((response.settled.task, response.settled.fence), None)

    def _begin(self, task: scheduler.Task) -> None:
        held = _Held(task=task, started=datetime.now(UTC))
        if held.key in self._held:
            return
        self._held[held.key] = held
        held.work = asyncio.create_task(self._work(held), name=task.name)

    async def _work(self, held: _Held) -> None:
        PATIENCE_S.set(OBJECTS_PATIENCE_S)
        task = held.task
        TASK.set(task.name)
        kind = task.WhichOneof("spec") or "none"
        handler = self._handlers.get(kind)
        try:
            if handler is None:
                raise UnknownTask(kind=kind)
            held.verdict = _done(task, await handler(task, _Reporter(held, self._say)))
        except Exception as failed:
            error = _cause(failed)
            if isinstance(error, KinoError):
                _log.warning("task failed", task=task.name, reason=error.reason, problem=error.message)
                held.verdict = _failed(task, error)
            else:
                incident = new_id()
                _log.error("task failed", task=task.name, incident=incident, exc_info=failed)
                held.verdict = _failed(task, Internal(incident=incident))
        self._say(held.verdict)

    def _say(self, word: api.WorkRequest) -> None:
        """Says it now, if anyone listens; what must not be lost is said again by `_welcome`."""
        if self._outbox is not None:
            self._outbox.put_nowait(word)

    async def _beat(self, outbox: asyncio.Queue[api.WorkRequest | None]) -> None:
        """Renews every lease in good time, also where nothing moves."""
        while True:
            await asyncio.sleep(self._lease_s / WORDS_PER_LEASE)
            for held in self._held.values():
                outbox.put_nowait(_progress(held))

    async def _abandon(self, given_up: list[_Held]) -> None:
        """Ends these tasks with their children, and forgets them."""
        for held in given_up:
            self._held.pop(held.key, None)
            if held.work is not None:
                held.work.cancel()
        await asyncio.gather(*(held.work for held in given_up if held.work), return_exceptions=True)

    async def _goodbye(self, call: Any) -> None:
        """Gives running tasks back at once, so that they need not wait for their leases to run out."""
        outbox, self._outbox = self._outbox, None
        if outbox is None:
            return
        for held in self._held.values():
            if held.verdict is None:
                outbox.put_nowait(_failed(held.task, WorkerStopping()))
        outbox.put_nowait(None)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError, grpc.aio.AioRpcError):
            async with asyncio.timeout(GOODBYE_S):
                async for _ in call:
                    pass


async def _words(outbox: asyncio.Queue[api.WorkRequest | None]) -> AsyncIterator[api.WorkRequest]:
    while (word := await outbox.get()) is not None:
        yield word
