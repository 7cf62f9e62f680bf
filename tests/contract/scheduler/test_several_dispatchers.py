"""Two schedulers on one store: what one does not know, the other has written down."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from services.runtime.sql import Database
from services.scheduler.model import LEASE, JobState, TaskState
from services.scheduler.sessions import Stop
from tests.contract.scheduler.test_dispatch import Desk, desk, lease, said, task, tasks_of


async def two(database: Database) -> tuple[Desk, Desk]:
    first = await desk(database)
    return first, await desk(database, first.clock)


async def test_a_worker_that_moves_to_another_scheduler_keeps_its_task(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    worker = await a.worker("w")
    a.dispatcher.progress(worker, lease(worker), 0.5)
    again, kept = await b.dispatcher.hello("w", b"", worker.needs, 1, [lease(worker)])
    await b.later(LEASE - timedelta(seconds=1))
    b.dispatcher.progress(again, kept[0], 0.7)
    await b.later(LEASE - timedelta(seconds=1))
    said(worker)
    await a.later(timedelta())
    assert (kept, await a.state(), said(worker)) == ([lease(worker)], (TaskState.RUNNING, 1, 0), [None])


async def test_the_stream_that_a_worker_left_behind_is_ended_and_given_nothing(
    sql_database: Database,
) -> None:
    a, b = await two(sql_database)
    left = await a.worker("w", 2)
    await b.worker("w", 2)
    await a.job("j", task(0))
    await a.dispatcher.match()
    await a.later(timedelta(seconds=5))
    assert said(left) == [None]


async def test_the_lease_of_a_dead_scheduler_ends_at_another(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    await a.worker("w")
    other = await b.worker("other")
    await b.later(LEASE)
    assert (tasks_of(other), await b.state()) == (["t0"], (TaskState.RUNNING, 2, 0))


async def test_a_lease_that_one_scheduler_renews_does_not_end_at_another(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    worker = await a.worker("w")
    for step in range(1, 6):
        await a.later(timedelta(seconds=10))
        a.dispatcher.progress(worker, lease(worker), step / 10)
        await b.later(timedelta())
    assert await a.state() == (TaskState.RUNNING, 1, 0)


async def test_progress_is_seen_from_the_other_scheduler(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    worker = await a.worker("w")
    a.dispatcher.progress(worker, lease(worker), 0.4)
    await a.later(timedelta(seconds=5))
    assert {name: held.progress for name, held in (await b.dispatcher.running("j")).items()} == {"t0": 0.4}


async def test_a_job_canceled_at_one_scheduler_stops_its_worker_at_the_other(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    worker = await a.worker("w")
    said(worker)
    ended = await b.store.end_job("j", JobState.CANCELED, None, b.clock.now())
    b.dispatcher.stop(ended.stopped, "the job has ended")
    await a.later(timedelta(seconds=5))
    assert said(worker) == [Stop(lease=lease(worker), reason="the lease is lost")]
    assert worker.free == 1


async def test_two_schedulers_that_give_at_once_give_no_task_twice(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", *[task(n) for n in range(20)])
    first, _ = await a.dispatcher.hello("first", b"", frozenset({"ENCODE_VIDEO/1"}), 10, [])
    second, _ = await b.dispatcher.hello("second", b"", frozenset({"ENCODE_VIDEO/1"}), 10, [])
    await asyncio.gather(a.dispatcher.match(), b.dispatcher.match())
    given = tasks_of(first) + tasks_of(second)
    assert sorted(given) == sorted(f"t{n}" for n in range(20))


async def test_a_result_whose_scheduler_died_is_published_by_another(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    worker = await a.worker("w")
    await a.dispatcher.done(worker, lease(worker), b"r", "cmd", [], publishes=True)
    await b.later(timedelta(seconds=10))
    early = list(b.published.done_tasks)
    await b.later(LEASE)
    assert (early, b.published.done_tasks) == ([], ["jobs/j/tasks/t0"])


async def test_a_result_is_taken_at_whichever_scheduler_the_worker_is(sql_database: Database) -> None:
    a, b = await two(sql_database)
    await a.job("j", task(0))
    worker = await a.worker("w")
    again, _ = await b.dispatcher.hello("w", b"", worker.needs, 1, [lease(worker)])
    await b.dispatcher.done(again, lease(worker), b"r", "cmd", [], publishes=True)
    await a.dispatcher.done(worker, lease(worker), b"late", "cmd", ["k-late"], publishes=True)
    assert (a.published.collected, (await a.store.task("j", "t0")).result) == (["k-late"], b"r")
