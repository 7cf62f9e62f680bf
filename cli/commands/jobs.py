"""`kino jobs`: what is being encoded, why something failed, who works."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Annotated, Any

import grpc.aio
import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from cli.client import Kino, Patience, connect
from cli.main import State, run
from cli.output import Output, as_dict
from kino.catalog.v1 import catalog_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.encoder.v1 import encoder_pb2 as encoder_api
from kino.encoder.v1 import resources_pb2 as encoder_pb2
from kino.encoder.v1.encoder_pb2_grpc import EncoderServiceStub
from kino.scheduler.v1 import resources_pb2, scheduler_pb2, scheduler_pb2_grpc
from services.runtime.errors import FailedPrecondition
from services.runtime.status import error_of

Job = resources_pb2.Job
#: How often another worker than the first is asked for: the gateway takes them in turn.
ASK_ELSEWHERE = 4
#: An encode takes as long as it took.
VERIFY_TIMEOUT_S = 1800.0


class JobFailed(FailedPrecondition):
    """{problem} Details: kino jobs explain {job}"""

    reason = "JOB_FAILED"
    fields = ("problem", "job")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    jobs = typer.Typer(no_args_is_help=True, help="Encoding jobs and workers.")
    jobs.command("list")(list_jobs)
    for command in (watch, explain, cancel, pause, resume, retry, prioritize, workers, verify):
        jobs.command()(command)
    app.add_typer(jobs, name="jobs")


def list_jobs(context: typer.Context) -> None:
    """List jobs, newest first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            page = await _stub(kino).ListJobs(scheduler_pb2.ListJobsRequest(page_size=100))
            rows = [(job.name, job.title, _state(job), f"{job.progress:.0%}") for job in page.jobs]
            state.output.messages(page.jobs, ("job", "title", "state", "done"), rows)

    run(work)


def watch(context: typer.Context, job: Annotated[str, typer.Argument(help="`jobs/…`")]) -> None:
    """Follow a job to its end."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            last = await watch_job(kino, job, state.output)
            ensure_succeeded(last)
            state.output.say(f"{job}: {_state(last)}")

    run(work)


async def watch_job(kino: Kino, name: str, output: Output) -> Job:
    """Show a job's progress until it ends; JSON lines for programs."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
    )
    last = Job(name=name)
    show_bars = output.err.is_terminal and not output.as_json
    with Progress(*columns, console=output.err, disable=not show_bars) as progress:
        bars: dict[str, TaskID] = {}
        async for job in _changes(kino, name):
            playable_before, done_before = last.HasField("playable_time"), last.done_task_count
            last = job
            if output.as_json:
                output.json({"job": as_dict(last)})
            elif not show_bars and last.done_task_count != done_before:
                output.say(f"{last.progress:4.0%}  {last.done_task_count}/{last.task_count} tasks")
            _show(progress, bars, last)
            if last.HasField("playable_time") and not playable_before:
                output.say(f"Playable now: {last.title}")
    return last


async def _changes(kino: Kino, name: str) -> AsyncIterator[Job]:
    """A job at each change to its end, from whichever scheduler answers."""
    patience = Patience()
    while True:
        try:
            async for answer in _stub(kino).WatchJob(scheduler_pb2.WatchJobRequest(name=name)):
                patience.news()
                yield answer.job
            return
        except grpc.aio.AioRpcError as error:
            await patience.after(error)


def _show(progress: Progress, bars: dict[str, TaskID], job: Job) -> None:
    total = [("all", job.progress, f"{job.done_task_count}/{job.task_count} tasks")]
    parts = [
        (
            part.rendition_id,
            part.progress,
            f"{part.published_segment_count}/{part.planned_segment_count} segments",
        )
        for part in job.renditions
    ]
    for name, done, note in [*total, *parts]:
        if name not in bars:
            bars[name] = progress.add_task(name, total=1.0, note=note)
        progress.update(bars[name], completed=done, note=note)


def ensure_succeeded(job: Job) -> None:
    """Raise `JobFailed` unless the job ended well."""
    if job.state == Job.STATE_SUCCEEDED:
        return
    problem = job.error.message if job.state == Job.STATE_FAILED else f"The job ended as {_state(job)}."
    raise JobFailed(problem, job.name)


def explain(context: typer.Context, job: Annotated[str, typer.Argument(help="`jobs/…`")]) -> None:
    """Show every task of a job: attempts, workers, commands, last error lines, what happens next."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await _stub(kino).ExplainJob(scheduler_pb2.ExplainJobRequest(name=job, page_size=1000))
            if state.output.as_json:
                state.output.json(as_dict(answer))
                return
            states = resources_pb2.TaskExplanation.State
            rows = [
                (
                    task.task.rpartition("/")[2],
                    task.summary,
                    states.Name(task.state).removeprefix("STATE_").lower(),
                    len(task.attempts),
                    task.next_step,
                )
                for task in answer.tasks
            ]
            state.output.table(("task", "what", "state", "tries", "next"), rows)
            for task in answer.tasks:
                _explain_failures(state.output, task)

    run(work)


def _explain_failures(output: Output, task: resources_pb2.TaskExplanation) -> None:
    for attempt in task.attempts:
        if attempt.HasField("error"):
            output.say(
                f"\n{task.summary}, try {attempt.attempt} on {attempt.worker}: {attempt.error.message}"
            )
            if attempt.command:
                output.say(f"  {attempt.command}")
            for line in attempt.stderr_lines:
                output.say(f"  | {line}")


def cancel(context: typer.Context, job: Annotated[str, typer.Argument(help="`jobs/…`")]) -> None:
    """Cancel a job; what is published stays."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await _stub(kino).CancelJob(scheduler_pb2.CancelJobRequest(name=job))
            state.output.facts({"job": answer.job.name, "state": _state(answer.job)})

    run(work)


def pause(context: typer.Context, job: Annotated[str, typer.Argument(help="`jobs/…`")]) -> None:
    """Pause a job: what runs is finished, nothing more is begun."""
    _steer(context, lambda stub: stub.PauseJob(scheduler_pb2.PauseJobRequest(name=job)))


def resume(context: typer.Context, job: Annotated[str, typer.Argument(help="`jobs/…`")]) -> None:
    """Go on with a paused job."""
    _steer(context, lambda stub: stub.ResumeJob(scheduler_pb2.ResumeJobRequest(name=job)))


def retry(context: typer.Context, job: Annotated[str, typer.Argument(help="`jobs/…`")]) -> None:
    """Try again what of a failed or cancelled job isn't done."""
    _steer(context, lambda stub: stub.RetryJob(scheduler_pb2.RetryJobRequest(name=job)))


class Priority(enum.StrEnum):
    """Which jobs go first."""

    LOW = "low"
    NORMAL = "normal"
    URGENT = "urgent"


def prioritize(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="`jobs/…`")],
    priority: Annotated[Priority, typer.Argument(help="urgent: for operators only")],
) -> None:
    """Let a job go before others, or after them; none starves."""
    value = Job.Priority.Value(f"PRIORITY_{priority.name}")
    request = scheduler_pb2.PrioritizeJobRequest(name=job, priority=value)
    _steer(context, lambda stub: stub.PrioritizeJob(request))


def _steer(
    context: typer.Context, call: Callable[[scheduler_pb2_grpc.SchedulerServiceStub], Awaitable[Any]]
) -> None:
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await call(_stub(kino))
            priority = Job.Priority.Name(answer.job.priority).removeprefix("PRIORITY_").lower()
            state.output.facts({"job": answer.job.name, "state": _state(answer.job), "priority": priority})

    run(work)


def workers(
    context: typer.Context,
    hardware: Annotated[bool, typer.Option(help="Each hardware encoder, and why it does not work.")] = False,
) -> None:
    """List the workers of the last hour."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await _stub(kino).ListWorkers(scheduler_pb2.ListWorkersRequest())
            if hardware and not state.output.as_json:
                state.output.table(
                    ("worker", "hardware encoder", "works", "why not"), _hardware(answer.workers)
                )
                return
            columns = ("worker", "connected", "slots", "ffmpeg", "sandbox", "hardware encoders")
            state.output.messages(answer.workers, columns, map(_worker, answer.workers))

    run(work)


def _worker(worker: resources_pb2.Worker) -> tuple[str, ...]:
    can = worker.capabilities
    return (
        worker.name,
        "yes" if worker.connected else "no",
        f"{len(worker.tasks)}/{worker.slot_count}",
        can.ffmpeg_version,
        ", ".join(can.sandbox),
        ", ".join(one.encoder for one in can.hardware_encoders if one.works) or "none works",
    )


def _hardware(workers: Iterable[resources_pb2.Worker]) -> list[tuple[str, ...]]:
    return [
        (worker.name, one.encoder, "yes" if one.works else "no", one.problem)
        for worker in workers
        for one in worker.capabilities.hardware_encoders
    ]


class EncodesDiffer(FailedPrecondition):
    """{count} of {total} segments came out differently on another worker; the table says which."""

    reason = "ENCODES_DIFFER"
    fields = ("count", "total")


def verify(
    context: typer.Context,
    title: Annotated[str, typer.Argument(help="`titles/…`")],
    sample: Annotated[str, typer.Option(help="Share of the encodes to repeat.")] = "5%",
    seed: Annotated[str, typer.Option(help="Decides which ones.")] = "",
) -> None:
    """Encode a sample of a title's segments again, on other workers, and compare the bytes.

    Example: kino jobs verify titles/… --sample 5%
    """
    state: State = context.obj
    share = _share(sample)

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await kino.stub(CatalogServiceStub).GetTitle(catalog_pb2.GetTitleRequest(name=title))
            checked = [
                await _again(kino, record) for record in await _records(kino, answer.title.job, share, seed)
            ]
            rows = [
                (segment.rendition_id, segment.number, _same(segment), one.worker)
                for one in checked
                for segment in one.segments
            ]
            state.output.messages(checked, ("rendition", "segment", "bytes", "repeated by"), rows)
            differing = sum(not same for same in (row[2] == "same" for row in rows))
            if differing:
                raise EncodesDiffer(differing, len(rows))
            state.output.say(f"{len(rows)} segments came out byte for byte the same.")

    run(work)


def _same(segment: encoder_pb2.VerifiedSegment) -> str:
    return "same" if segment.published_sha256 == segment.repeated_sha256 else "DIFFERENT"


def _share(text: str) -> float:
    """A share given as `5%` or `0.05`."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{text} is no share: give, for example, 5%")
    return value


async def _records(kino: Kino, job: str, share: float, seed: str) -> list[encoder_pb2.EncodeRecord]:
    """A sample of the encodes of a job; at least one."""
    found: list[encoder_pb2.EncodeRecord] = []
    request = scheduler_pb2.ListEncodeRecordsRequest(
        name=job, page_size=100, sample_share=share, sample_seed=seed
    )
    while True:
        page = await _stub(kino).ListEncodeRecords(request)
        found += page.records
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    if found:
        return found
    first = scheduler_pb2.ListEncodeRecordsRequest(name=job, page_size=1)
    return list((await _stub(kino).ListEncodeRecords(first)).records)


async def _again(kino: Kino, record: encoder_pb2.EncodeRecord) -> encoder_api.VerifyEncodeResponse:
    """An encode repeated by another worker; by the same one where none answers."""
    stub = kino.stub(EncoderServiceStub)
    for elsewhere in (*[True] * ASK_ELSEWHERE, False):
        request = encoder_api.VerifyEncodeRequest(record=record, elsewhere=elsewhere)
        try:
            return await stub.VerifyEncode(request, timeout=VERIFY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if not elsewhere or error_of(error).reason != "SAME_WORKER":
                raise
    raise AssertionError("the last request accepts any worker")


def _stub(kino: Kino) -> scheduler_pb2_grpc.SchedulerServiceStub:
    return kino.stub(scheduler_pb2_grpc.SchedulerServiceStub)


def _state(job: Job) -> str:
    return Job.State.Name(job.state).removeprefix("STATE_").lower()
