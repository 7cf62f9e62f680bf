"""Workers, their slots and leases: which task goes to whom, and when it is taken back.

What must survive is in the store: fences, attempts, results, and when each lease ends, for any scheduler on
the same store takes it back then. Here are the streams of this process, and the progress of their tasks as
last heard. A worker whose scheduler dies dials in at another and names what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from services.runtime.clock import Clock
from services.runtime.errors import Code, OutcomeUnknown, Unavailable
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.scheduler.model import (
    LEASE,
    MAX_COMMAND_CHARS,
    MAX_LINE_CHARS,
    MAX_STDERR_LINES,
    OVERDUE_FACTOR,
    STALL,
    Attempt,
    Candidate,
    Failure,
    Lease,
    Task,
    TaskState,
    choose,
    is_fair,
    overdue_after,
)
from services.scheduler.sessions import Held, Session, Settled, Stop
from services.scheduler.signals import Signals
from services.scheduler.store import Ended, Heard, Missed, Store

_log = logger("scheduler")
#: How often leases are looked at while there are any.
_TICK_S = 1.0
#: How often the store is told what is heard of running tasks.
_RENEW_S = LEASE.total_seconds() / 8
#: How often, while there is nothing to do, that workers are there.
_SIGN_OF_LIFE_S = LEASE.total_seconds() / 4


class Publisher(Protocol):
    """What happens to segments after their task; see `services.scheduler.publish`."""

    def ready(self, lease: Lease, segments: bytes) -> None:
        """Publish segments of a task that goes on."""

    def done(self, lease: Lease) -> None:
        """Publish the stored result of a task, then settle the task."""

    def collect(self, lease: Lease, keys: Sequence[str]) -> None:
        """Delete those of these objects that are not published."""


class Dispatcher:
    """Gives tasks to workers and takes them back."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        publisher: Publisher,
        clock: Clock,
        most_per_owner: int = 0,
    ) -> None:
        """`most_per_owner`: tasks of one owner's jobs that may run at a time, 0 for any number."""
        self._store = store
        self._signals = signals
        self._publisher = publisher
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._wake = asyncio.Event()
        self._matching = asyncio.Lock()
        # To give out a task and to take a result each read what the other changes. At once, PostgreSQL would
        # have every second of them done anew: measured, one after the other is half as quick again.
        self._storing = asyncio.Lock()
        self._virtual = 0
        self._turn = 0
        self._closing = False
        self._most_per_owner = most_per_owner
        #: Measured µs for each frame by need, and what was measured since that was stored.
        self._costs: dict[str, float] = {}
        self._measured: dict[str, list[float]] = {}
        self._renew_at = 0.0
        #: No lease is taken back before: while nobody could renew them, all seem to have ended.
        self._lenient_until = 0.0

    async def recover(self) -> None:
        """Take up what a predecessor left: leases go on, stored results are published."""
        self._be_lenient()
        for lease in await self._store.take_publications(self._clock.now(), all_=True):
            self._publisher.done(lease)
        self._virtual = min(await self._store.served(), default=0)
        self._costs = await self._store.costs()
        self.wake()

    async def run(self) -> None:
        """Match and watch until cancelled, which ends all streams; sleeps while there is nothing to do."""
        try:
            while True:
                self._wake.clear()
                await self._rest(await self._round())
        except asyncio.CancelledError:
            self._closing = True
            for session in self._sessions.values():
                session.outbox.put_nowait(None)
            self._signals.close()
            raise

    async def _round(self) -> float | None:
        """Look after everything once; how long to rest when nothing happens."""
        try:
            await self.tick()
            await self.match()
            due = await self._store.next_retry()
        except (Unavailable, OutcomeUnknown) as error:
            _log.warning("can't give out tasks", problem=error.message)
            self._be_lenient()
            return _TICK_S
        if due is not None or self._measured or self._held():
            return _TICK_S
        bound_s = self._signals.bound_s
        if not self._sessions:
            return bound_s
        return _SIGN_OF_LIFE_S if bound_s is None else min(bound_s, _SIGN_OF_LIFE_S)

    async def _rest(self, pause_s: float | None) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Look for matches: a task or a slot has become free."""
        self._wake.set()

    async def hello(
        self,
        worker_id: str,
        capabilities: bytes,
        needs: frozenset[str],
        slot_count: int,
        held: Iterable[Lease],
    ) -> tuple[Session, list[Lease]]:
        """A worker dials in. Returns its session and those of the leases it names that are still its own.

        What it was thought to hold and doesn't name, it has lost: that goes to another at once. Raises
        `Unavailable` while the service ends.
        """
        if self._closing:
            raise Unavailable(retry_after_ms=1_000)
        session = Session(
            worker_id=worker_id,
            session_id=new_id(),
            capabilities=capabilities,
            needs=needs,
            slot_count=slot_count,
            last_seen=self._clock.now(),
        )
        kept, lost = await self._store.hello(session.known(), frozenset(held), self._clock.now())
        old = self._sessions.get(worker_id)
        for task in kept:
            before = old.held.get((task.job_id, task.task_id)) if old else None
            self._hold(session, task, before.progress if before else task.progress)
        self._sessions[worker_id] = session
        if old is not None:
            old.outbox.put_nowait(None)
        for task in lost:
            await self._lose(task, "the worker came back without it")
        _log.info("worker connected", worker=worker_id, slots=slot_count, kept=len(kept))
        self.wake()
        return session, [task.lease for task in kept]

    async def goodbye(self, session: Session) -> None:
        """The stream is gone; leases go on until they run out."""
        if self._sessions.get(session.worker_id) is session:
            del self._sessions[session.worker_id]
            self.wake()
            # A store that is away is told by its silence.
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await self._store.goodbye(session.worker_id, session.session_id, self._clock.now())

    def progress(self, session: Session, lease: Lease, value: float) -> None:
        """A task goes on."""
        holding = self._heard(session, lease)
        if holding is None:
            session.outbox.put_nowait(Stop(lease=lease, reason="the lease is lost"))
        elif holding.progress != value:
            holding.progress, holding.moved = value, self._clock.monotonic()
            self._signals.moved(lease.job_id)

    def segments_ready(self, session: Session, lease: Lease, segments: bytes, keys: Sequence[str]) -> None:
        """Segments are finished before their task is."""
        holding = self._heard(session, lease)
        if holding is None:
            session.outbox.put_nowait(Stop(lease=lease, reason="the lease is lost"))
            self._publisher.collect(lease, keys)
        else:
            holding.moved = self._clock.monotonic()
            self._publisher.ready(lease, segments)

    async def done(
        self,
        session: Session,
        lease: Lease,
        result: bytes,
        command: str,
        keys: Sequence[str],
        *,
        publishes: bool,
    ) -> None:
        """A task is done: its result is stored if the lease still holds."""
        holding = self._heard(session, lease)
        state = TaskState.PUBLISHING if publishes else TaskState.SUCCEEDED
        command = command[:MAX_COMMAND_CHARS]
        async with self._storing:
            accepted = await self._store.complete(lease, state, result, command, self._clock.now())
        if accepted and holding is not None:
            self._measure(holding)
        if accepted and publishes:
            self._publisher.done(lease)
        elif not accepted:
            self._publisher.collect(lease, keys)
        self._release(lease)
        session.outbox.put_nowait(Settled(lease=lease, accepted=accepted))

    async def failed(
        self, session: Session, lease: Lease, failure: Failure, command: str = "", stderr: Sequence[str] = ()
    ) -> None:
        """A task failed."""
        holding = self._heard(session, lease)
        ended = await self._fail(lease, failure, holding.progress if holding else 0.0, command, stderr)
        session.outbox.put_nowait(Settled(lease=lease, accepted=ended.changed))

    async def tick(self) -> None:
        """Stop tasks that stand still, tell the store what is heard, take back leases that ran out."""
        now = self._clock.monotonic()
        for holding in self._held():
            if now - holding.moved >= STALL.total_seconds():
                await self._halt(holding, "TASK_STALLED", f"no progress for {STALL.total_seconds():.0f} s")
            elif now >= self._overdue_at(holding):
                seconds = f"{now - holding.begun:.0f} s"
                why = f"not done after {seconds}, over {OVERDUE_FACTOR} times what such a task takes"
                await self._halt(holding, "TASK_OVERDUE", why)
        if now >= self._renew_at:
            await self._renew()
        if now >= self._lenient_until:
            for task in await self._store.expired(self._clock.now()):
                await self._expire(task)
        for lease in await self._store.take_publications(self._clock.now()):
            self._publisher.done(lease)

    async def match(self) -> None:
        """Give waiting tasks to free slots until one of them is used up."""
        async with self._matching:
            idle = dict(self._sessions)
            while idle:
                session = max(idle.values(), key=lambda s: (s.free, s.worker_id))
                gone = self._sessions.get(session.worker_id) is not session
                if gone or session.free <= 0 or not await self._give(session):
                    del idle[session.worker_id]

    def stop(self, leases: Iterable[Lease], reason: str) -> None:
        """Tell workers to stop tasks whose job has ended; those of other schedulers are told by them."""
        for lease in leases:
            self._say_stop(lease, reason)
            self._release(lease)

    async def take_back(self, tasks: Iterable[Task], reason: str) -> None:
        """Give a worker's tasks to others: it is in quarantine."""
        message = f"The worker was put in quarantine: {reason}"
        failure = Failure(code=Code.UNAVAILABLE, reason="WORKER_QUARANTINED", message=message)
        for task in tasks:
            if (await self._fail(task.lease, failure, task.progress)).changed:
                self._say_stop(task.lease, "the worker is in quarantine")

    async def running(self, job_id: str) -> Mapping[str, Held]:
        """The job's running tasks by id, with the progress heard here or else stored."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        here = {holding.lease: holding for holding in self._held()}
        return {
            task.task_id: here.get(task.lease)
            or Held(
                lease=task.lease,
                until=monotonic + (task.expire - now).total_seconds(),
                begun=monotonic,
                moved=monotonic,
                need=task.need,
                frames=task.frames,
                progress=task.progress,
            )
            for task in await self._store.running(job_id)
        }

    def lease_left(self, holding: Held) -> float:
        """Seconds until the lease runs out without a word."""
        return max(0.0, holding.until - self._clock.monotonic())

    async def _give(self, session: Session) -> bool:
        picked: list[Candidate] = []

        def pick(candidates: Sequence[Candidate]) -> Candidate:
            picked[:] = [choose(candidates, virtual=self._virtual, turn=self._turn)]
            return picked[0]

        async with self._storing:
            task = await self._store.assign(
                session.needs,
                session.worker_id,
                session.session_id,
                self._clock.now(),
                pick,
                most_per_owner=self._most_per_owner,
            )
        if task is None:
            return False
        if is_fair(self._turn):
            self._virtual = picked[0].served
        self._turn += 1
        self._hold(session, task, seen_whole=True)
        session.outbox.put_nowait(task)
        self._signals.changed(task.job_id)
        return True

    async def _fail(
        self,
        lease: Lease,
        failure: Failure,
        progress: float,
        command: str = "",
        stderr: Sequence[str] = (),
        *,
        expired: bool = False,
    ) -> Ended:
        attempt = Attempt(
            fence=lease.fence,
            attempt=0,
            worker=lease.worker,
            start_time=self._clock.now(),
            command=command[:MAX_COMMAND_CHARS],
            stderr_lines=tuple(line[:MAX_LINE_CHARS] for line in stderr[-MAX_STDERR_LINES:]),
            failure=failure,
            progress=progress,
        )
        ended = await self._store.fail(lease, attempt, self._clock.now(), expired=expired)
        self._release(lease)
        self.stop(ended.stopped, "the job has failed")
        if ended.changed:
            _log.warning("attempt failed", task=lease.task, worker=lease.worker, reason=failure.reason)
        return ended

    async def _lose(self, task: Task, why: str, *, expired: bool = False) -> Ended:
        failure = Failure(code=Code.UNAVAILABLE, reason="WORKER_LOST", message=f"The worker was lost: {why}.")
        return await self._fail(task.lease, failure, task.progress, expired=expired)

    async def _expire(self, task: Task) -> None:
        seconds = f"{LEASE.total_seconds():.0f}"
        ended = await self._lose(task, f"nothing was heard for {seconds} s", expired=True)
        if ended.changed:
            self._say_stop(task.lease, "the lease ran out")

    async def _halt(self, holding: Held, reason: str, why: str) -> None:
        """Stop a task that takes too long; that counts as a failure of it."""
        message = f"{why[0].upper()}{why[1:]}."
        failure = Failure(code=Code.DEADLINE_EXCEEDED, reason=reason, message=message)
        await self._fail(holding.lease, failure, holding.progress)
        self._say_stop(holding.lease, why)

    def _overdue_at(self, holding: Held) -> float:
        after = overdue_after(holding.frames, self._costs.get(holding.need))
        return holding.begun + after.total_seconds() if after else math.inf

    def _measure(self, holding: Held) -> None:
        """Learn from a task that is done, if this scheduler saw all of it."""
        if holding.frames and holding.seen_whole:
            seconds = self._clock.monotonic() - holding.begun
            self._measured.setdefault(holding.need, []).append(seconds * 1e6 / holding.frames)

    async def _renew(self) -> None:
        """Tell the store what is heard here, and hear from it what others did to these leases."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._renew_at = monotonic + _RENEW_S
        if self._measured:
            measured, self._measured = self._measured, {}
            self._costs = await self._store.learn(measured)
        if not self._sessions:
            return
        heard = [
            Heard(
                lease=holding.lease,
                expire=now + timedelta(seconds=holding.until - monotonic),
                progress=holding.progress,
            )
            for holding in self._held()
        ]
        # An open stream is a sign of life, also of a worker that has nothing to say.
        workers = [replace(session.known(), last_seen=now) for session in self._sessions.values()]
        self._drop(await self._store.renew(workers, heard, now))
        for job_id in {each.lease.job_id for each in heard}:
            self._signals.changed(job_id)

    def _drop(self, missed: Missed) -> None:
        """Give up what others have taken: leases, and workers that have dialled in elsewhere."""
        self.stop(missed.leases, "the lease is lost")
        for session in list(self._sessions.values()):
            if session.session_id in missed.sessions:
                del self._sessions[session.worker_id]
                session.outbox.put_nowait(None)

    def _held(self) -> list[Held]:
        return [holding for session in self._sessions.values() for holding in session.held.values()]

    def _hold(self, session: Session, task: Task, progress: float = 0.0, *, seen_whole: bool = False) -> None:
        now = self._clock.monotonic()
        session.held[task.job_id, task.task_id] = Held(
            lease=task.lease,
            until=now + LEASE.total_seconds(),
            begun=now,
            moved=now,
            need=task.need,
            frames=task.frames,
            progress=progress,
            seen_whole=seen_whole,
        )

    def _heard(self, session: Session, lease: Lease) -> Held | None:
        """Note that the lease lives; None when it isn't this worker's any more."""
        session.last_seen = self._clock.now()
        holding = session.held.get((lease.job_id, lease.task_id))
        if holding is None or holding.lease != lease:
            return None
        holding.until = self._clock.monotonic() + LEASE.total_seconds()
        return holding

    def _release(self, lease: Lease) -> None:
        session = self._sessions.get(lease.worker)
        key = (lease.job_id, lease.task_id)
        if session is not None and key in session.held and session.held[key].lease == lease:
            del session.held[key]
        self._signals.changed(lease.job_id)
        self.wake()

    def _say_stop(self, lease: Lease, reason: str) -> None:
        session = self._sessions.get(lease.worker)
        if session is not None:
            session.outbox.put_nowait(Stop(lease=lease, reason=reason))

    def _be_lenient(self) -> None:
        self._lenient_until = self._clock.monotonic() + LEASE.total_seconds()
