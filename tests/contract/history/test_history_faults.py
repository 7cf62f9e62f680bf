"""History while nodes of Cassandra are killed and started again: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kino.history.v1 import history_pb2 as pb
from kino.history.v1 import history_pb2_grpc
from services.history.bootstrap import build
from services.history.cassandra import Cassandra
from services.history.errors import HistoryUnavailable
from services.history.model import Report
from services.history.store_cassandra import CassandraHistory
from services.runtime.app import Running
from services.runtime.ids import new_id
from services.runtime.settings import Settings
from services.runtime.testing import channel_of, serving, settings_in, user_token
from tests.contract.history.reports import SECOND, report
from tests.engines.cassandra import CassandraCluster, cassandra_settings
from tests.support.stack import refusal

pytestmark = pytest.mark.engine
SERVICE = "kino.history.v1.HistoryService"


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[CassandraHistory]:
    cassandra = Cassandra(settings)
    await until(cassandra.open)
    yield CassandraHistory(cassandra)
    await cassandra.close()


async def until(succeeds: Callable[[], Awaitable[object]], within_s: float = 90) -> None:
    """Try again while the engine is away."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            await succeeds()
            return
        except HistoryUnavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


class Viewer:
    """Reports second after second, again when it is told to, and remembers what was acknowledged."""

    def __init__(self, store: CassandraHistory) -> None:
        self.store = store
        self.profile = f"users/{new_id()}/profiles/ann"
        self.acknowledged = 0
        self.refused = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        await self.acknowledges(5)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def acknowledges(self, more: int) -> None:
        goal = self.acknowledged + more
        await self._until(lambda: self.acknowledged >= goal)

    async def is_refused(self) -> None:
        await self._until(lambda: self.refused > 0)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(90), self._changed:
            await self._changed.wait_for(holds)

    async def all_is_there(self) -> bool:
        view = await self.store.view(self._report(1).key)
        listed = await self.store.views(self.profile, None, 9)
        # One more may have been stored than was acknowledged.
        return (
            view is not None
            and [view] == listed
            and view.intervals[0][0] == SECOND
            and view.intervals[0][1] // SECOND - 1 >= self.acknowledged
        )

    def _report(self, second: int) -> Report:
        return report(
            self.profile,
            sequence=second,
            position_ns=second * SECOND,
            intervals=((second * SECOND, (second + 1) * SECOND),),
        )

    async def _watch(self) -> None:
        while True:
            try:
                await self.store.record(self._report(self.acknowledged + 1))
                self.acknowledged += 1
            except HistoryUnavailable:
                self.refused += 1
                await asyncio.sleep(0.05)
            async with self._changed:
                self._changed.notify_all()


async def test_with_one_of_three_nodes_killed_history_goes_on_and_with_two_it_says_so(
    cassandra_cluster: CassandraCluster,
) -> None:
    settings = Settings(**cassandra_settings(cassandra_cluster.hosts, "kino", replication=3))
    _, second, third = cassandra_cluster.nodes
    async with opened(settings) as store:
        viewer = Viewer(store)
        async with viewer.watching():
            third.process.kill()
            await viewer.acknowledges(50)
            assert viewer.refused == 0
            second.process.kill()
            await viewer.is_refused()
            await asyncio.to_thread(cassandra_cluster.start, [second, third])
            await viewer.acknowledges(20)
        assert await viewer.all_is_there()


async def test_a_service_starts_without_its_engine_and_goes_on_by_itself_when_it_is_there_or_back(
    tmp_path: Path,
) -> None:
    engine = CassandraCluster(tmp_path / "cassandra")
    settings = settings_in(tmp_path, **cassandra_settings(engine.hosts, "kino", replication=1))
    try:
        async with serving(tmp_path, settings=settings, history=build) as process:
            await health_becomes(process, serving=False)
            assert await asked(process) == ("UNAVAILABLE", "HISTORY_UNAVAILABLE")
            await asyncio.to_thread(engine.start)
            await health_becomes(process, serving=True)
            assert await asked(process) == ("OK", "")
            async with opened(settings) as store:
                viewer = Viewer(store)
                async with viewer.watching():
                    engine.nodes[0].process.kill()
                    await health_becomes(process, serving=False)
                    assert await asked(process) == ("UNAVAILABLE", "HISTORY_UNAVAILABLE")
                    await asyncio.to_thread(engine.start)
                    await viewer.acknowledges(20)
                    await health_becomes(process, serving=True)
                assert viewer.refused > 0
                assert await viewer.all_is_there()
            assert await asked(process) == ("OK", "")
    finally:
        engine.stop()


async def asked(process: Running) -> tuple[str, str]:
    """How a call of the service ends."""
    async with channel_of(process, user_token(process, "users/ann")) as channel:
        stub = history_pb2_grpc.HistoryServiceStub(channel)
        return await refusal(stub.ListViews(pb.ListViewsRequest(parent="users/ann/profiles/ann")))


async def health_becomes(process: Running, *, serving: bool) -> None:
    wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    async with asyncio.timeout(90), channel_of(process) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
            if answer.status == wanted:
                return
