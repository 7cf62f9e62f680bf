"""`kino jobs`: what is being encoded, why something failed, who works."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Annotated, Any

import grpc.aio
import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from cli.client import Kino, Patience, connect
from cli.commands.verify import verify
from cli.main import State, run
from cli.output import Output, as_dict
from kino.preprocessor.v1.resources_pb2 import Treatment
from kino.scheduler.v1 import resources_pb2, scheduler_pb2, scheduler_pb2_grpc
from services.runtime.errors import FailedPrecondition

Job = resources_pb2.Job


class JobFailed(FailedPrecondition):
    """{problem} Details: kino jobs explain {job}"""

    reason = "JOB_FAILED"
    fields = ("problem", "job")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    jobs = typer.Typer(no_args_is_help=True, help="Encoding jobs and workers.")
    jobs.command("list")(list_jobs)
    for command in (watch, explain, cancel, pause, resume, retry, prioritize, workers, readmit, verify):
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
    for step in last.report.steps:
        if step.kind == Treatment.KIND_DROP_TRACK:
            output.say(step.reason)
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
    problem = job.error.message or f"The job ended as {_state(job)}."
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
            columns = ("worker", "connected", "slots", "ffmpeg", "sandbox", "hardware encoders", "quarantine")
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
        _quarantine(worker),
    )


def _hardware(workers: Iterable[resources_pb2.Worker]) -> list[tuple[str, ...]]:
    return [
        (worker.name, one.encoder, "yes" if one.works else "no", one.problem)
        for worker in workers
        for one in worker.capabilities.hardware_encoders
    ]


def _quarantine(worker: resources_pb2.Worker) -> str:
    """Why it gets no tasks, and until when."""
    if not worker.quarantine_reason:
        return ""
    end = "until `kino jobs readmit`"
    if worker.HasField("quarantine_end_time"):
        end = f"until {worker.quarantine_end_time.ToDatetime():%H:%M:%S} UTC"
    return f"{end}: {worker.quarantine_reason}"


def readmit(context: typer.Context, worker: Annotated[str, typer.Argument(help="`workers/…`")]) -> None:
    """End a worker's quarantine: it gets tasks again."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            answer = await _stub(kino).ReadmitWorker(scheduler_pb2.ReadmitWorkerRequest(name=worker))
            state.output.facts({"worker": answer.worker.name, "quarantine": "none"})

    run(work)


def _stub(kino: Kino) -> scheduler_pb2_grpc.SchedulerServiceStub:
    return kino.stub(scheduler_pb2_grpc.SchedulerServiceStub)


def _state(job: Job) -> str:
    return Job.State.Name(job.state).removeprefix("STATE_").lower()
