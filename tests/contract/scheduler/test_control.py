"""Jobs as people steer them, limits, workers that fail, and what is learned of costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from services.runtime.errors import Code
from services.runtime.objects import ObjectStoreFull
from services.runtime.sql import Database
from services.scheduler.model import (
    MAX_LOSSES,
    MAX_WORKER_FAILURES,
    OVERDUE_FACTOR,
    QUARANTINE,
    REPLACED,
    Failure,
    JobEnded,
    JobEnding,
    JobState,
    TaskState,
    Urgency,
    WorkerNotFound,
)
from services.scheduler.schema import TASKS
from services.scheduler.sessions import Stop
from services.scheduler.signals import Signals
from services.scheduler.usecases import Jobs
from services.scheduler.wire import next_step
from tests.contract.scheduler.test_dispatch import BROKEN, VIDEO, desk, lease, said, task, tasks_of

CAPABLE = encoder.Capabilities(
    task_kinds=[encoder.TASK_KIND_ENCODE_VIDEO], video_codecs=[media.VIDEO_CODEC_H264]
)
FULL = Failure(code=Code.RESOURCE_EXHAUSTED, reason=ObjectStoreFull.reason, message="Full.")


async def test_a_paused_job_begins_nothing_until_it_is_resumed(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0), task(1))
    worker = await d.worker("w")
    await d.store.pause_job("j", paused=True)
    await d.dispatcher.done(worker, lease(worker), b"r", "", [], publishes=True)
    await d.dispatcher.match()
    assert tasks_of(worker) == ["t0"]
    await d.store.pause_job("j", paused=False)
    await d.dispatcher.match()
    assert tasks_of(worker) == ["t1"]


async def test_an_urgent_job_goes_first_and_starves_no_other(sql_database: Database) -> None:
    d = await desk(sql_database)
    for job_id in ("old", "urgent"):
        await d.job(job_id, *[task(n) for n in range(12)])
    await d.store.prioritize_job("urgent", Urgency.URGENT)
    worker = await d.worker("w", 8)
    jobs = [lease.job_id for lease in (held.lease for held in worker.held.values())]
    assert (jobs.count("urgent"), jobs.count("old")) == (6, 2)


async def test_an_ended_job_is_not_steered(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    await d.store.end_job("j", JobState.CANCELED, None, d.clock.now())
    with pytest.raises(JobEnded):
        await d.store.pause_job("j", paused=True)
    with pytest.raises(JobEnded):
        await d.store.prioritize_job("j", Urgency.LOW)


async def test_a_retried_job_keeps_what_is_done_and_tries_the_rest_afresh(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0), task(1), task(2))
    worker = await d.worker("w", 3)
    await d.dispatcher.done(worker, lease(worker, "t1"), b"r", "", [], publishes=False)
    for _ in range(3):
        fence = (await d.state())[1]
        await d.dispatcher.failed(worker, lease(worker, fence=fence), BROKEN)
        d.dispatcher.progress(worker, lease(worker, "t2"), fence / 10)
        await d.later(timedelta(seconds=16))
    await d.store.end_job("j", JobState.FAILED, BROKEN, d.clock.now())
    with pytest.raises(JobEnding):
        await d.store.retry_job("j")
    await d.store.close_job("j")
    job = await d.store.retry_job("j")
    assert (job.state, job.failure, job.end_time) == (JobState.PENDING, None, None)
    assert await d.store.unfinished_jobs() == [("j", 1)]
    assert [await d.state(f"t{n}") for n in range(3)] == [
        (TaskState.WAITING, 3, 0),
        (TaskState.SUCCEEDED, 1, 0),
        (TaskState.WAITING, 1, 0),
    ]
    await d.dispatcher.done(worker, lease(worker, "t2"), b"late", "", ["k-late"], publishes=True)
    assert d.published.collected == ["k-late"]


async def test_a_retry_of_a_job_that_goes_on_changes_nothing(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    assert (await d.store.retry_job("j")).state is JobState.RUNNING
    assert await d.store.unfinished_jobs() == [("j", 0)]


async def test_one_owner_gets_no_more_slots_than_are_granted(sql_database: Database) -> None:
    d = await desk(sql_database, most_per_owner=2)
    await d.job("a", *[task(n) for n in range(5)])
    await d.job("b", *[task(n) for n in range(5)], owner="users/b")
    worker = await d.worker("w", 10)
    jobs = [held.lease.job_id for held in worker.held.values()]
    assert (jobs.count("a"), jobs.count("b")) == (2, 2)


async def test_a_worker_that_fails_one_task_after_the_other_gets_none_for_a_while(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    await d.job("j", *[task(n) for n in range(6)])
    bad = await d.worker("bad")
    for n in range(3):
        await d.dispatcher.failed(bad, lease(bad, f"t{n}"), BROKEN)
        await d.dispatcher.match()
    assert tasks_of(bad) == ["t0", "t1", "t2"]
    [known] = await d.store.workers(d.clock.now() - timedelta(hours=1))
    assert known.quarantine_end == d.clock.now() + QUARANTINE
    good = await d.worker("good")
    assert tasks_of(good) == ["t3"]
    await d.later(QUARANTINE)
    assert len(tasks_of(bad)) == 1


async def test_a_task_that_fails_everywhere_puts_no_worker_in_quarantine(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    for fence in (1, 2, 3):
        await d.dispatcher.failed(worker, lease(worker, fence=fence), BROKEN)
        await d.later(timedelta(seconds=30))
    [known] = await d.store.workers(d.clock.now() - timedelta(hours=1))
    assert known.quarantine_end < d.clock.now()


async def test_a_full_origin_uses_up_no_attempt_and_puts_no_worker_in_quarantine(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    await d.job("j", *[task(n) for n in range(MAX_WORKER_FAILURES)])
    worker = await d.worker("w", MAX_WORKER_FAILURES)
    waits = []
    for fence in range(1, MAX_LOSSES + 2):
        for n in range(MAX_WORKER_FAILURES):
            await d.dispatcher.failed(worker, lease(worker, f"t{n}", fence), FULL)
        found = await d.store.task("j", "t0")
        assert found.not_before is not None
        waits.append((found.not_before - d.clock.now()).total_seconds())
        [_, (waiting, tried), *_] = await d.store.explain("j", (), 10)
        told = next_step(waiting, tried[-1], 0, [], d.clock.now())
        assert told == (
            f"Tried again in {waits[-1]:.0f} s (attempt {fence + 1})."
            " The origin is full: make room. That uses up none of its attempts."
        )
        await d.later(timedelta(seconds=waits[-1]))
    assert waits == [1, 4, 16] + [60] * (MAX_LOSSES - 2)
    assert await d.state() == (TaskState.RUNNING, MAX_LOSSES + 2, 0)
    [known] = await d.store.workers(d.clock.now() - timedelta(hours=1))
    assert known.quarantine_end < d.clock.now()


async def test_attempts_that_met_a_full_origin_make_no_later_failure_wait_longer(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    waits = []
    for fence, failure in enumerate((FULL, FULL, BROKEN, FULL), 1):
        await d.dispatcher.failed(worker, lease(worker, fence=fence), failure)
        found = await d.store.task("j", "t0")
        assert found.not_before is not None
        waits.append((found.not_before - d.clock.now()).total_seconds())
        await d.later(timedelta(seconds=20))
    assert waits == [1, 4, 1, 16]


async def test_a_worker_in_quarantine_gives_up_its_tasks_and_gets_none_until_it_is_readmitted(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    jobs = Jobs(d.store, Signals(), d.dispatcher, d.clock, lambda: None)
    await d.job("j", task(0), task(1))
    bad = await d.worker("bad")
    said(bad)
    known = await jobs.quarantine("bad", "Its encodes differ.")
    able = replace(known, capabilities=CAPABLE.SerializeToString(), session="any")
    assert said(bad) == [Stop(lease=lease(bad), reason="the worker is in quarantine")]
    await d.later(QUARANTINE)
    again = await d.worker("bad")
    assert (tasks_of(bad), tasks_of(again)) == ([], [])
    assert await d.state() == (TaskState.WAITING, 1, 0)
    assert next_step(await d.store.task("j", "t1"), None, 0, [able], known.last_seen) == (
        "Waits until an able worker is readmitted; all are in quarantine (workers/bad: Its encodes differ.)."
    )
    assert (await jobs.quarantine("bad", "Another reason.")).quarantine_reason == "Its encodes differ."

    d.clock.advance(timedelta(days=1))
    assert [w.worker_id for w in await jobs.workers()] == ["bad"]
    assert tasks_of(await d.worker("good")) == ["t0"]
    await jobs.readmit("bad")
    await d.dispatcher.match()
    assert tasks_of(again) == ["t1"]


async def test_done_encodes_come_in_pages_however_few_of_them_are_chosen(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", *[task(n) for n in range(2_500)], task(3_000, "ANALYZE/0"))
    done = TASKS.c.task_id.not_in(["t7", "t77"])
    values = {"state": TaskState.SUCCEEDED.value, "result": b"r"}
    await sql_database.write(lambda conn: conn.execute(update(TASKS).where(done).values(**values)))

    pages: list[list[str]] = []
    while not pages or pages[-1]:
        after = pages[-1][-1] if pages else ""
        found = await d.store.done_encodes("j", after, 4, lambda task_id: task_id.endswith("77"))
        assert all(one.result == b"r" for one in found)
        pages.append([one.task_id for one in found])
    expected = sorted(f"t{n}" for n in range(2_500) if n % 100 == 77 and n != 77)
    assert [task_id for page in pages for task_id in page] == expected
    assert [len(page) for page in pages] == [4] * 6 + [0]


async def test_a_worker_nobody_heard_of_is_not_put_in_quarantine(sql_database: Database) -> None:
    d = await desk(sql_database)
    with pytest.raises(WorkerNotFound):
        await d.store.quarantine_worker("w", "Why.")
    with pytest.raises(WorkerNotFound):
        await d.store.readmit_worker("w")


async def test_a_task_is_stopped_that_takes_much_longer_than_its_like(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0), task(1))
    worker = await d.worker("w")
    d.clock.advance(timedelta(seconds=30))
    await d.dispatcher.done(worker, lease(worker), b"r", "", [], publishes=True)
    await d.later(timedelta(seconds=5))
    for step in range(10 * OVERDUE_FACTOR):
        d.dispatcher.progress(worker, lease(worker, "t1"), step / 1000)
        await d.later(timedelta(seconds=3))
    assert await d.dispatcher._store.costs() == {VIDEO: pytest.approx(30e6 / 125)}
    stops = [word for word in said(worker) if isinstance(word, Stop)]
    assert [(stop.lease.task_id, stop.reason) for stop in stops] == [
        ("t1", "not done after 300 s, over 10 times what such a task takes")
    ]
    assert await d.state("t1") == (TaskState.WAITING, 1, 1)


async def test_costs_are_known_to_a_scheduler_that_starts(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.store.learn({VIDEO: [100.0]})
    assert await d.store.learn({VIDEO: [180.0], "ENCODE_VIDEO/2": [50.0]}) == {
        VIDEO: 110.0,
        "ENCODE_VIDEO/2": 50.0,
    }


async def test_the_first_prediction_stays(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    now = d.clock.now()
    await d.store.predict("j", now, now + timedelta(minutes=1))
    await d.store.predict("j", now + timedelta(hours=1), now + timedelta(hours=1))
    job = await d.store.job("j")
    assert (job.predicted_playable, job.predicted_end) == (now, now + timedelta(minutes=1))


async def test_what_was_written_after_a_job_ended_is_swept_once(sql_database: Database) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    await d.store.end_job("j", JobState.CANCELED, None, d.clock.now())
    await d.store.close_job("j")
    assert await d.store.unswept_jobs(d.clock.now()) == []
    d.clock.advance(timedelta(minutes=1))
    assert await d.store.unswept_jobs(d.clock.now()) == ["j"]
    await d.store.swept("j")
    assert await d.store.unswept_jobs(d.clock.now()) == []


async def test_a_job_whose_source_replaces_others_ends_the_older_ones_of_its_title(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    for job_id in ("ended", "old", "kept", "new", "newer"):
        await d.job(job_id, task(0))
        d.clock.advance(timedelta(seconds=1))
    await d.store.end_job("ended", JobState.FAILED, BROKEN, d.clock.now())
    new = await d.store.job("new")
    await d.store.create_job(replace(new, job_id="other", title="titles/other"))
    ended = await d.store.end_replaced(new, ["jobs/kept"], d.clock.now())
    assert {job_id: one.changed for job_id, one in ended.items()} == {"ended": False, "old": True}
    assert not (await d.store.end_replaced(new, ["jobs/kept"], d.clock.now()))["old"].changed
    states = {name: (await d.store.job(name)).state for name in ("old", "kept", "new", "newer", "other")}
    assert states == {
        "old": JobState.CANCELED,
        "kept": JobState.RUNNING,
        "new": JobState.RUNNING,
        "newer": JobState.RUNNING,
        "other": JobState.RUNNING,
    }
    assert (await d.store.job("old")).failure == REPLACED
    assert (await d.store.end_replaced(new, [], d.clock.now()))["kept"].changed


async def test_a_job_whose_publication_is_refused_for_a_newer_source_is_cancelled_not_failed(
    sql_database: Database,
) -> None:
    d = await desk(sql_database)
    await d.job("j", task(0))
    worker = await d.worker("w")
    await d.dispatcher.done(worker, lease(worker), b"r", "", [], publishes=True)
    refusal = Failure(code=Code.FAILED_PRECONDITION, reason="NOT_THE_TITLES_JOB", message="No.")
    await d.store.fail_publication("j", "t0", refusal, d.clock.now())
    job = await d.store.job("j")
    assert (job.state, job.failure) == (JobState.CANCELED, REPLACED)
