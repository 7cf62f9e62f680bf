"""Workers, their slots and leases: which task goes to whom, and when it is taken back.

What must survive is in the store (fence, attempts, results); here is only what a restart may forget: open
streams, how long each lease still lasts, and the progress of running tasks. After a restart every lease
begins anew, so that workers have time to dial in again and name what they hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from services.runtime.clock import Clock
from services.runtime.errors import Code, Unavailable
from services.runtime.logs import logger
from services.scheduler.model import (
    FINAL_CODES,
    LEASE,
    MAX_COMMAND_CHARS,
    MAX_LINE_CHARS,
    MAX_STDERR_LINES,
    STALL,
    WORKER_CODES,
    Attempt,
    Candidate,
    Failure,
    Lease,
    Task,
    TaskState,
    choose,
    is_fair,
)
from services.scheduler.signals import Signals
from services.scheduler.store import Ended, KnownWorker, Store

_log = logger("scheduler")
#: How often leases are looked at while there are any.
_TICK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Tell the worker to stop a task."""

    lease: Lease
    reason: str


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Tell the worker that its result or failure was taken, or refused."""

    lease: Lease
    accepted: bool


Word = Task | Stop | Settled | None


class Publisher(Protocol):
    """What happens to segments after their task; see `services.scheduler.publish`."""

    def ready(self, lease: Lease, segments: bytes) -> None:
        """Publish segments of a task that goes on."""

    def done(self, lease: Lease) -> None:
        """Publish the stored result of a task, then settle the task."""

    def collect(self, lease: Lease, keys: Sequence[str]) -> None:
        """Delete those of these objects that are not published."""


@dataclass(kw_only=True)
class Held:
    """A lease as it runs."""

    lease: Lease
    #: When it ends without a word, by the monotonic clock.
    until: float
    #: When the progress last changed.
    moved: float
    #: Frames of the task.
    frames: int = 0
    progress: float = 0.0


@dataclass(kw_only=True)
class Session:
    """A worker, with its open stream or without."""

    worker_id: str
    capabilities: bytes = b""
    needs: frozenset[str] = frozenset()
    slot_count: int = 0
    last_seen: datetime
    connected: bool = False
    #: What is to be said on the stream; None ends it.
    outbox: asyncio.Queue[Word] = field(default_factory=asyncio.Queue)
    held: dict[tuple[str, str], Held] = field(default_factory=dict)

    def known(self) -> KnownWorker:
        """What is worth remembering of it."""
        return KnownWorker(
            worker_id=self.worker_id,
            capabilities=self.capabilities,
            slot_count=self.slot_count,
            last_seen=self.last_seen,
        )


class Dispatcher:
    """Gives tasks to workers and takes them back."""

    def __init__(self, store: Store, signals: Signals, publisher: Publisher, clock: Clock) -> None:
        self._store = store
        self._signals = signals
        self._publisher = publisher
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._wake = asyncio.Event()
        self._matching = asyncio.Lock()
        self._virtual = 0
        self._turn = 0
        self._closing = False

    async def recover(self) -> None:
        """Take up what a predecessor left: leases go on, stored results are published."""
        for task in await self._store.in_state(TaskState.RUNNING):
            lease = Lease(job_id=task.job_id, task_id=task.task_id, fence=task.fence, worker=task.worker)
            self._hold(self._session(task.worker), lease, task.frames)
        for task in await self._store.in_state(TaskState.PUBLISHING):
            self._publisher.done(
                Lease(job_id=task.job_id, task_id=task.task_id, fence=task.fence, worker=task.worker)
            )
        self._virtual = min(await self._store.served(), default=0)
        self.wake()

    async def run(self) -> None:
        """Match and watch until cancelled, which ends all streams; sleeps while there is nothing to do."""
        try:
            await self._run()
        except asyncio.CancelledError:
            self._closing = True
            for session in self._sessions.values():
                session.outbox.put_nowait(None)
            self._signals.close()
            raise

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self.tick()
            await self.match()
            due = await self._store.next_retry()
            pause = _TICK_S if due is not None or any(s.held for s in self._sessions.values()) else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

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
        old = self._session(worker_id)
        old.outbox.put_nowait(None)
        session = Session(
            worker_id=worker_id,
            capabilities=capabilities,
            needs=needs,
            slot_count=slot_count,
            last_seen=self._clock.now(),
            connected=True,
            held=old.held,
        )
        self._sessions[worker_id] = session
        named = set(held)
        kept = []
        for holding in list(session.held.values()):
            if holding.lease in named:
                self._hold(session, holding.lease, holding.frames, holding.progress)
                kept.append(holding.lease)
            else:
                await self._lose(holding, "the worker came back without it")
        await self._see(session)
        _log.info("worker connected", worker=worker_id, slots=slot_count, kept=len(kept))
        self.wake()
        return session, kept

    async def goodbye(self, session: Session) -> None:
        """The stream is gone; leases go on until they run out."""
        session.connected = False
        if self._sessions.get(session.worker_id) is session:
            await self._see(session)
            self.wake()

    def progress(self, session: Session, lease: Lease, value: float) -> None:
        """A task goes on."""
        holding = self._heard(session, lease)
        if holding is None:
            session.outbox.put_nowait(Stop(lease=lease, reason="the lease is lost"))
        elif holding.progress != value:
            holding.progress, holding.moved = value, self._clock.monotonic()
            self._signals.changed(lease.job_id)

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
        self._heard(session, lease)
        state = TaskState.PUBLISHING if publishes else TaskState.SUCCEEDED
        command = command[:MAX_COMMAND_CHARS]
        accepted = await self._store.complete(lease, state, result, command, self._clock.now())
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
        """Take back leases that ran out, stop tasks that stand still."""
        now = self._clock.monotonic()
        for session in list(self._sessions.values()):
            for holding in list(session.held.values()):
                if now >= holding.until:
                    await self._lose(holding, f"nothing was heard for {LEASE.total_seconds():.0f} s")
                    self._say_stop(holding.lease, "the lease ran out")
                elif now - holding.moved >= STALL.total_seconds():
                    await self._stall(holding)
        self._forget(self._clock.now() - timedelta(hours=1))

    async def match(self) -> None:
        """Give waiting tasks to free slots until one of them is used up."""
        async with self._matching:
            idle = {s.worker_id for s in self._sessions.values() if s.connected}
            while idle:
                worker_id = max(idle, key=lambda w: (self._free(w), w))
                if self._free(worker_id) <= 0 or not await self._give(self._sessions[worker_id]):
                    idle.discard(worker_id)

    def stop(self, leases: Iterable[Lease], reason: str) -> None:
        """Tell workers to stop tasks whose job has ended."""
        for lease in leases:
            self._say_stop(lease, reason)
            self._release(lease)

    def running(self, job_id: str) -> Mapping[str, Held]:
        """The job's running tasks by id, with their progress."""
        return {
            task_id: holding
            for session in self._sessions.values()
            for (job, task_id), holding in session.held.items()
            if job == job_id
        }

    def sessions(self) -> Sequence[Session]:
        """All workers known to this process."""
        return list(self._sessions.values())

    def lease_left(self, holding: Held) -> float:
        """Seconds until the lease runs out without a word."""
        return max(0.0, holding.until - self._clock.monotonic())

    async def _give(self, session: Session) -> bool:
        picked: list[Candidate] = []

        def pick(candidates: Sequence[Candidate]) -> Candidate:
            picked[:] = [choose(candidates, virtual=self._virtual, turn=self._turn)]
            return picked[0]

        task = await self._store.assign(session.needs, session.worker_id, self._clock.now(), pick)
        if task is None:
            return False
        if is_fair(self._turn):
            self._virtual = picked[0].served
        self._turn += 1
        lease = Lease(job_id=task.job_id, task_id=task.task_id, fence=task.fence, worker=session.worker_id)
        current = self._session(session.worker_id)
        self._hold(current, lease, task.frames)
        current.outbox.put_nowait(task)
        self._signals.changed(task.job_id)
        return True

    async def _fail(
        self, lease: Lease, failure: Failure, progress: float, command: str = "", stderr: Sequence[str] = ()
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
        ended = await self._store.fail(
            lease,
            attempt,
            self._clock.now(),
            counts=failure.code not in WORKER_CODES,
            final=failure.code in FINAL_CODES,
        )
        self._release(lease)
        self.stop(ended.stopped, "the job has failed")
        if ended.changed:
            _log.warning("attempt failed", task=lease.task, worker=lease.worker, reason=failure.reason)
        return ended

    async def _lose(self, holding: Held, why: str) -> None:
        failure = Failure(code=Code.UNAVAILABLE, reason="WORKER_LOST", message=f"The worker was lost: {why}.")
        await self._fail(holding.lease, failure, holding.progress)

    async def _stall(self, holding: Held) -> None:
        seconds = f"{STALL.total_seconds():.0f}"
        failure = Failure(
            code=Code.DEADLINE_EXCEEDED, reason="TASK_STALLED", message=f"No progress for {seconds} s."
        )
        await self._fail(holding.lease, failure, holding.progress)
        self._say_stop(holding.lease, f"no progress for {seconds} s")

    def _session(self, worker_id: str) -> Session:
        if worker_id not in self._sessions:
            self._sessions[worker_id] = Session(worker_id=worker_id, last_seen=self._clock.now())
        return self._sessions[worker_id]

    def _hold(self, session: Session, lease: Lease, frames: int, progress: float = 0.0) -> None:
        now = self._clock.monotonic()
        session.held[lease.job_id, lease.task_id] = Held(
            lease=lease, until=now + LEASE.total_seconds(), moved=now, frames=frames, progress=progress
        )

    def _heard(self, session: Session, lease: Lease) -> Held | None:
        """Renew the lease; None when it isn't this worker's any more."""
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
        if session is not None and session.connected:
            session.outbox.put_nowait(Stop(lease=lease, reason=reason))

    def _free(self, worker_id: str) -> int:
        session = self._sessions[worker_id]
        return session.slot_count - len(session.held) if session.connected else 0

    def _forget(self, before: datetime) -> None:
        for session in list(self._sessions.values()):
            if not session.connected and not session.held and session.last_seen < before:
                del self._sessions[session.worker_id]

    async def _see(self, session: Session) -> None:
        await self._store.see_worker(session.known())
