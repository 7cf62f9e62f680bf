from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from services.runtime.clock import ManualClock
from services.runtime.errors import Code
from services.runtime.sql import Database
from services.scheduler.dispatch import Dispatcher
from services.scheduler.model import (
    LEASE,
    MAX_GIVEN_UP,
    MAX_LOSSES,
    STALL,
    Failure,
    Job,
    JobState,
    Lease,
    NewTask,
    Task,
    TaskKind,
    TaskState,
    Tier,
    priority,
    summed_up,
)
from services.scheduler.sessions import Session, Settled, Stop, Word
from services.scheduler.signals import Signals
from services.scheduler.store import RANKS
from services.scheduler.store_sql import SqlStore

VIDEO, AUDIO = "ENCODE_VIDEO/1", "ENCODE_AUDIO/1"
BROKEN = Failure(code=Code.INTERNAL, reason="FFMPEG_FAILED", message="It broke.")
SOURCE_FAULT = Failure(code=Code.INVALID_ARGUMENT, reason="SOURCE_TRUNCATED", message="It ends early.")


@dataclass
class Published:
    ready_keys: list[str] = field(default_factory=list)
    done_tasks: list[str] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)

    def ready(self, lease: Lease, segments: bytes) -> None:
        self.ready_keys.append(lease.task)

    def done(self, lease: Lease) -> None:
        self.done_tasks.append(lease.task)

    def collect(self, lease: Lease, keys: Sequence[str]) -> None:
        self.collected += keys


@dataclass(kw_only=True)
class Desk:
    store: SqlStore
    clock: ManualClock
    published: Published
    dispatcher: Dispatcher

    async def job(self, job_id: str, *tasks: NewTask, owner: str = "users/a") -> None:
        await self.store.create_job(
            Job(
                job_id=job_id,
                title="titles/t",
                owner=owner,
                source=b"",
                given=b"",
                create_time=self.clock.now(),
            )
        )
        await self.store.start_job(job_id)
        await self.store.add_tasks(job_id, tasks)

    async def worker(self, name: str, slots: int = 1, *needs: str, held: Sequence[Lease] = ()) -> Session:
        session, _ = await self.dispatcher.hello(name, b"", frozenset(needs or (VIDEO, AUDIO)), slots, held)
        await self.dispatcher.match()
        return session

    async def later(self, by: timedelta) -> None:
        self.clock.advance(by)
        await self.dispatcher.tick()
        await self.dispatcher.match()

    async def state(self, task_id: str = "t0", job_id: str = "j") -> tuple[TaskState, int, int]:
        task = await self.store.task(job_id, task_id)
        return task.state, task.fence, task.failures


async def desk(database: Database, clock: ManualClock | None = None, most_per_owner: int = 0) -> Desk:
    """One scheduler's dispatcher; several may share a database and a clock."""
    store, clock, published = SqlStore(database), clock or ManualClock(), Published()
    dispatcher = Dispatcher(store, Signals(), published, clock, most_per_owner)
    await dispatcher.recover()
    return Desk(store=store, clock=clock, published=published, dispatcher=dispatcher)


def task(number: int, need: str = VIDEO, tier: Tier = Tier.REST, frames: int = 125) -> NewTask:
    kind = TaskKind(need.partition("/")[0])
    return NewTask(
        task_id=f"t{number}", kind=kind, need=need, priority=priority(tier, position=number), frames=frames,
        spec=b"", summary=f"Encoding chunk {number}",
    )  # fmt: skip


def said(session: Session) -> list[Word]:
    words = []
    while not session.outbox.empty():
        words.append(session.outbox.get_nowait())
    return words


def tasks_of(session: Session) -> list[str]:
    return [word.task_id for word in said(session) if isinstance(word, Task)]


def lease(session: Session, task_id: str = "t0", fence: int = 1, job_id: str = "j") -> Lease:
    return Lease(job_id=job_id, task_id=task_id, fence=fence, worker=session.worker_id)


async def test_no_worker_gets_more_tasks_than_slots_or_one_it_cannot_do(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", *[task(n) for n in range(5)], task(5, AUDIO))
    two, audio = await d.worker("two", 2, VIDEO), await d.worker("audio", 4, AUDIO)
    assert (tasks_of(two), tasks_of(audio)) == (["t0", "t1"], ["t5"])
    await d.dispatcher.done(two, lease(two), b"r", "cmd", [], publishes=True)
    await d.dispatcher.match()
    assert tasks_of(two) == ["t2"]


async def test_a_worker_with_nothing_to_do_stays_connected(sql_database: Database) -> None:
    d = await desk(sql_database)
    idle = await d.worker("idle")
    for _ in range(4):
        await d.later(LEASE / 2)
    (known,) = await d.store.workers(d.clock.now() - LEASE)
    assert (known.worker_id, known.connected(d.clock.now())) == ("idle", True)

    await d.dispatcher.goodbye(idle)
    (known,) = await d.store.workers(d.clock.now() - LEASE)
    assert not known.connected(d.clock.now())


async def test_better_tiers_go_first_whatever_their_order_of_arrival(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0), task(1, tier=Tier.HIGHLIGHT), task(2, AUDIO, tier=Tier.OPENING))
    assert tasks_of(await d.worker("w", 3)) == ["t2", "t1", "t0"]


async def test_two_jobs_share_the_slots(sql_database: Database) -> None:
    d = await desk(sql_database)
    for job_id in ("a", "b"):
        await d.job(job_id, *[task(n) for n in range(10)])
    worker = await d.worker("w", 10)
    jobs = [word.job_id for word in said(worker) if isinstance(word, Task)]
    assert (jobs.count("a"), jobs.count("b")) == (5, 5)


async def test_a_result_is_taken_once_and_only_with_its_fence(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    said(worker)
    old, new = lease(worker, fence=0), lease(worker)
    await d.dispatcher.done(worker, old, b"old", "", ["k-old"], publishes=True)
    await d.dispatcher.done(worker, new, b"new", "", ["k-new"], publishes=True)
    await d.dispatcher.done(worker, new, b"again", "", ["k-again"], publishes=True)
    assert said(worker) == [
        Settled(lease=old, accepted=False),
        Settled(lease=new, accepted=True),
        Settled(lease=new, accepted=False),
    ]
    assert (d.published.done_tasks, d.published.collected) == (["jobs/j/tasks/t0"], ["k-old", "k-again"])
    assert (await d.store.task("j", "t0")).result == b"new"


async def test_a_broken_stream_keeps_the_lease_and_a_reconnection_takes_it_up(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    await d.dispatcher.goodbye(worker)
    other = await d.worker("other")
    await d.later(LEASE - timedelta(seconds=1))
    assert tasks_of(other) == []
    again = await d.worker("w", 1, held=[lease(worker)])
    await d.later(LEASE - timedelta(seconds=1))
    assert (await d.state(), tasks_of(again), tasks_of(other)) == ((TaskState.RUNNING, 1, 0), [], [])


async def test_an_expired_lease_goes_to_another_worker_with_a_higher_fence(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    await d.dispatcher.goodbye(worker)
    other = await d.worker("other")
    await d.later(LEASE)
    assert (tasks_of(other), await d.state()) == (["t0"], (TaskState.RUNNING, 2, 0))
    await d.dispatcher.done(worker, lease(worker), b"late", "", ["k-late"], publishes=True)
    assert d.published.collected == ["k-late"]


async def test_progress_renews_the_lease(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    for step in range(1, 6):
        await d.later(LEASE - timedelta(seconds=1))
        d.dispatcher.progress(worker, lease(worker), step / 10)
    assert await d.state() == (TaskState.RUNNING, 1, 0)


async def test_a_task_that_stands_still_is_stopped_and_tried_again(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    said(worker)
    for _ in range(int(STALL / timedelta(seconds=10))):
        d.dispatcher.progress(worker, lease(worker), 0.0)
        await d.later(timedelta(seconds=10))
    assert said(worker) == [Stop(lease=lease(worker), reason="no progress for 120 s")]
    assert await d.state() == (TaskState.WAITING, 1, 1)
    await d.later(timedelta(seconds=1))
    assert tasks_of(worker) == []
    assert tasks_of(await d.worker("another")) == ["t0"]


async def test_three_failing_attempts_give_up_a_chunk_while_the_rest_goes_on(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0), task(1))
    worker = await d.worker("w", 2)
    for fence in (1, 2, 3):
        await d.dispatcher.failed(worker, lease(worker, fence=fence), BROKEN, "ffmpeg", ["no"])
        d.dispatcher.progress(worker, lease(worker, "t1"), fence / 10)
        await d.later(timedelta(seconds=16))
    assert await d.state("t0") == (TaskState.FAILED, 3, 3)
    assert await d.state("t1") == (TaskState.RUNNING, 1, 0)
    assert (await d.store.job("j")).state is JobState.RUNNING
    [(given_up, failure)] = await d.store.given_up("j")
    told = summed_up([(given_up, failure)])
    assert told
    assert told.message == (
        "Encoding chunk 0 failed after 3 attempts: It broke. The rest of the title is done."
    )


async def test_a_job_ends_when_nothing_can_go_on_without_a_task_or_too_many_are_given_up(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    await d.job("read", task(0, "ANALYZE/0"), task(1))
    await d.job("bad", *[task(n) for n in range(MAX_GIVEN_UP + 1)])
    worker = await d.worker("w", MAX_GIVEN_UP + 3, VIDEO, "ANALYZE/0")
    await d.dispatcher.failed(worker, lease(worker, job_id="read"), SOURCE_FAULT)
    for n in range(MAX_GIVEN_UP):
        assert (await d.store.job("bad")).state is JobState.RUNNING
        await d.dispatcher.failed(worker, lease(worker, f"t{n}", job_id="bad"), SOURCE_FAULT)
    words = said(worker)
    for job_id, task_id in (("read", "t1"), ("bad", f"t{MAX_GIVEN_UP}")):
        assert (await d.store.job(job_id)).state is JobState.FAILED
        stopped = Stop(lease=lease(worker, task_id, job_id=job_id), reason="the job has failed")
        assert stopped in words


async def test_a_fault_of_the_source_is_final_at_the_first_attempt(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    await d.dispatcher.failed(worker, lease(worker), SOURCE_FAULT)
    assert await d.state() == (TaskState.FAILED, 1, 1)


async def test_lost_workers_do_not_use_up_attempts_but_not_for_ever(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    states = []
    for _ in range(MAX_LOSSES):
        await d.worker("w")
        states.append((await d.state())[2])
        await d.worker("w", 1)
        d.clock.advance(timedelta(minutes=1))
    assert states == [0] * MAX_LOSSES
    assert (await d.state())[0] is TaskState.FAILED


async def test_a_canceled_job_hands_out_nothing_and_takes_no_more_tasks(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0), task(1))
    worker = await d.worker("w")
    ended = await d.store.end_job("j", JobState.CANCELED, None, d.clock.now())
    d.dispatcher.stop(ended.stopped, "the job has ended")
    assert await d.store.add_tasks("j", [task(2)]) is False
    await d.dispatcher.match()
    assert tasks_of(worker) == ["t0"]
    assert [await d.state(t) for t in ("t0", "t1")] == [
        (TaskState.CANCELED, 1, 0),
        (TaskState.CANCELED, 0, 0),
    ]


async def test_after_a_restart_leases_go_on_and_stored_results_are_published(sql_database: Database) -> None:
    clock = ManualClock()
    d = await desk(sql_database, clock)
    await d.job("j", task(0), task(1))
    worker = await d.worker("w", 2)
    await d.dispatcher.done(worker, lease(worker, "t1"), b"r", "", [], publishes=True)
    d = await desk(sql_database, clock)
    assert d.published.done_tasks == ["jobs/j/tasks/t1"]
    other = await d.worker("other")
    assert tasks_of(other) == []
    again = await d.worker("w", 2, held=[lease(worker)])
    await d.dispatcher.done(again, lease(worker), b"r", "", [], publishes=True)
    assert (await d.state())[0] is TaskState.PUBLISHING


async def test_a_second_stream_of_a_worker_ends_the_first(sql_database: Database) -> None:
    d = await desk(sql_database)
    first = await d.worker("w")
    await d.worker("w")
    assert said(first) == [None]


async def test_explain_lists_failed_running_waiting_and_done_tasks_in_pages(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", *[task(n) for n in range(3)])
    await d.job("bad", task(9))
    worker = await d.worker("w", 3)
    await d.dispatcher.failed(worker, lease(worker, "t1"), BROKEN, "ffmpeg -i x", ["l"] * 50)
    await d.dispatcher.done(worker, lease(worker, "t0"), b"r", "cmd", [], publishes=False)
    found = await d.store.explain("j", (), 10)
    states = [t.state for t, _ in found]
    assert states == sorted(states, key=[TaskState.RUNNING, TaskState.WAITING, TaskState.SUCCEEDED].index)
    (tried,) = next(attempts for t, attempts in found if t.task_id == "t1")
    assert (tried.command, len(tried.stderr_lines), tried.failure) == ("ffmpeg -i x", 40, BROKEN)
    first, rest = await d.store.explain("j", (), 1), await d.store.explain("j", cursor(found[0][0]), 10)
    assert first + rest == found


def cursor(last: Task) -> tuple[int, int, str]:
    return RANKS[last.state], last.priority, last.task_id
