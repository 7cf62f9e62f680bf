from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kino.history.v1 import history_pb2 as pb
from kino.history.v1 import history_pb2_grpc
from kino.history.v1.resources_pb2 import Interval, View
from kino.playback.v1.resources_pb2 import LeaseClaims
from services.history.bootstrap import build
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.settings import Settings
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, settings_in, user_token

ANN = "users/ann/profiles/ann"


@dataclass
class World:
    process: Running
    stack: AsyncExitStack
    clock: ManualClock
    device: Any

    async def stub(self, user: str, *roles: str) -> Any:
        channel = await self.stack.enter_async_context(
            channel_of(self.process, user_token(self.process, user, *roles))
        )
        return history_pb2_grpc.HistoryServiceStub(channel)

    def lease(
        self, number: int = 1, *, title: str = "titles/solaris", kind: str = "lease", hours: int = 1
    ) -> str:
        claims = LeaseClaims(
            lease=f"leases/l{number}",
            profile=ANN,
            title=title,
            device="tv",
            title_duration=Duration(seconds=100),
        )
        claims.start_time.FromDatetime(self.clock.now())
        expires = self.clock.now() + timedelta(hours=hours)
        return self.process.context.sealer.seal(kind, claims.SerializeToString(), expires)

    async def record(self, lease: str, sequence: int, seconds: float, *watched: tuple[float, float]) -> View:
        request = pb.RecordProgressRequest(
            lease_token=lease,
            sequence=sequence,
            position=duration(seconds),
            intervals=[
                Interval(start_offset=duration(start), end_offset=duration(end)) for start, end in watched
            ],
        )
        view: View = (await self.device.RecordProgress(request)).view
        return view


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1_000_000_000))


def naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


@pytest.fixture(params=["sql", pytest.param("cassandra", marks=pytest.mark.engine)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock()
    settings = settings_in(tmp_path)
    async with AsyncExitStack() as stack:
        if request.param == "cassandra":
            settings = settings.model_copy(update=request.getfixturevalue("cassandra"))
            stack.push_async_callback(emptied, settings)
        process = await stack.enter_async_context(
            serving(tmp_path, settings=settings, clock=clock, history=build)
        )
        nobody = await stack.enter_async_context(channel_of(process))
        yield World(process, stack, clock, history_pb2_grpc.HistoryServiceStub(nobody))


async def emptied(settings: Settings) -> None:
    """Empty the keyspace: all tests are about the same profile."""
    from services.history.cassandra import Cassandra

    cassandra = Cassandra(settings)
    await cassandra.open()
    for table in ("views", "watch_days", "profiles"):
        await cassandra.run(f"TRUNCATE {table}")
    await cassandra.close()


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_of(caught.value)
    return error.code.name, error.reason


async def test_progress_becomes_a_view_that_the_profile_sees(world: World) -> None:
    ann, started = await world.stub("users/ann"), world.clock.now()
    lease = world.lease()
    await world.record(lease, 1, 10, (0, 10))
    world.clock.advance(20)
    answered = await world.record(lease, 2, 33.367, (20, 33.367), (5, 12))
    expected = View(
        name=f"{ANN}/views/solaris",
        title="titles/solaris",
        position=duration(33.367),
        intervals=[
            Interval(start_offset=duration(0), end_offset=duration(12)),
            Interval(start_offset=duration(20), end_offset=duration(33.367)),
        ],
        completion=0.25367,
        title_duration=duration(100),
        device="tv",
    )
    expected.first_watch_time.FromDatetime(started)
    expected.last_watch_time.FromDatetime(world.clock.now())
    assert answered == expected
    assert (await ann.GetView(pb.GetViewRequest(name=expected.name))).view == expected
    assert list((await ann.ListViews(pb.ListViewsRequest(parent=ANN))).views) == [expected]
    assert list((await ann.ListContinueWatching(pb.ListContinueWatchingRequest(parent=ANN))).views) == [
        expected
    ]


async def test_a_second_device_takes_over_and_late_reports_of_the_first_change_only_intervals(
    world: World,
) -> None:
    first = world.lease(1)
    await world.record(first, 1, 50, (0, 50))
    world.clock.advance(60)
    second = world.lease(2)
    await world.record(second, 1, 5, (0, 5))
    view = await world.record(first, 2, 60, (50, 60))
    assert view.position == duration(5)
    assert view.intervals == [Interval(start_offset=duration(0), end_offset=duration(60))]


async def test_a_lease_token_is_taken_for_a_day_after_it_expired(world: World) -> None:
    lease = world.lease(hours=1)
    world.clock.advance(timedelta(hours=24, minutes=59))
    assert (await world.record(lease, 1, 10)).position == duration(10)
    world.clock.advance(timedelta(minutes=1))
    assert await refused(world.record(lease, 2, 11)) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


async def test_only_sealed_leases_are_taken(world: World) -> None:
    lease = world.lease()
    changed = lease[:40] + ("A" if lease[40] != "A" else "B") + lease[41:]
    for token in ("x", changed, world.lease(kind="page"), user_token(world.process, "users/ann")):
        assert await refused(world.record(token, 1, 10)) == ("UNAUTHENTICATED", "TOKEN_INVALID")


@pytest.mark.parametrize(
    ("sequence", "seconds", "watched"),
    [(0, 1, ()), (-1, 1, ()), (1, 1e10, ()), (1, 1, ((5, 5),)), (1, 1, ((5, 4),)), (1, 1, ((0, 1),) * 101)],
)
async def test_impossible_progress_is_refused(
    world: World, sequence: int, seconds: float, watched: tuple[tuple[float, float], ...]
) -> None:
    assert (await refused(world.record(world.lease(), sequence, seconds, *watched)))[0] == "INVALID_ARGUMENT"


async def test_negative_times_are_refused(world: World) -> None:
    for fields in (
        {"position": Duration(seconds=-1)},
        {
            "position": Duration(),
            "intervals": [Interval(start_offset=Duration(nanos=-1), end_offset=Duration(seconds=1))],
        },
        {"position": Duration(), "intervals": [Interval()]},
        {},
    ):
        request: Any = pb.RecordProgressRequest(lease_token=world.lease(), sequence=1, **fields)
        assert (await refused(world.device.RecordProgress(request)))[0] == "INVALID_ARGUMENT"


async def test_profiles_of_others_are_out_of_reach(world: World) -> None:
    await world.record(world.lease(), 1, 10)
    name = f"{ANN}/views/solaris"
    for user in ("users/eve", "users/an", "users/ann2"):
        stub = await world.stub(user, "publisher")
        for call in (
            stub.GetView(pb.GetViewRequest(name=name)),
            stub.ListViews(pb.ListViewsRequest(parent=ANN)),
            stub.ListContinueWatching(pb.ListContinueWatchingRequest(parent=ANN)),
            stub.DeleteView(pb.DeleteViewRequest(name=name)),
            stub.ClearHistory(pb.ClearHistoryRequest(parent=ANN)),
        ):
            assert await refused(call) == ("PERMISSION_DENIED", "NOT_OWNER")
    operator = await world.stub("users/root", "operator")
    assert (await operator.GetView(pb.GetViewRequest(name=name))).view.position == duration(10)
    assert (await refused(world.device.GetView(pb.GetViewRequest(name=name))))[0] == "UNAUTHENTICATED"


async def test_what_was_not_begun_is_not_found_and_bad_names_are_refused(world: World) -> None:
    ann = await world.stub("users/ann")
    assert await refused(ann.GetView(pb.GetViewRequest(name=f"{ANN}/views/none"))) == (
        "NOT_FOUND",
        "VIEW_NOT_FOUND",
    )
    for name in ("", "x" * 10_240, f"{ANN}/views/🎬", f"{ANN}/views/../x", f"{ANN}/views/שלום"):
        assert (await refused(ann.GetView(pb.GetViewRequest(name=name))))[0] == "INVALID_ARGUMENT"


async def test_lists_are_paged_and_forged_tokens_refused(world: World) -> None:
    ann = await world.stub("users/ann")
    for number in range(5):
        world.clock.advance(1)
        await world.record(world.lease(number, title=f"titles/t{number}"), 1, 10)
    seen, token = [], ""
    while True:
        page = await ann.ListViews(pb.ListViewsRequest(parent=ANN, page_size=2, page_token=token))
        seen += [view.title for view in page.views]
        if not page.next_page_token:
            break
        token = page.next_page_token
    assert seen == [f"titles/t{number}" for number in (4, 3, 2, 1, 0)]
    other = f"{ANN}x"
    for parent, forged in ((other, token), (ANN, token[:-3] + "AAA"), (ANN, "🎬"), (ANN, world.lease())):
        request = pb.ListViewsRequest(parent=parent, page_size=2, page_token=forged)
        assert (await refused(ann.ListViews(request)))[0] == "INVALID_ARGUMENT"


async def test_deleted_history_stays_deleted_although_the_device_goes_on_reporting(world: World) -> None:
    ann, lease, name = await world.stub("users/ann"), world.lease(), f"{ANN}/views/solaris"
    await world.record(lease, 1, 10)
    world.clock.advance(5)
    for _ in range(2):
        await ann.DeleteView(pb.DeleteViewRequest(name=name))
    assert await world.record(lease, 2, 20, (10, 20)) == View(name=name, title="titles/solaris")
    assert (await refused(ann.GetView(pb.GetViewRequest(name=name))))[0] == "NOT_FOUND"
    world.clock.advance(1)
    assert (await world.record(world.lease(2), 1, 3)).position == duration(3)
    world.clock.advance(1)
    await ann.ClearHistory(pb.ClearHistoryRequest(parent=ANN))
    assert list((await ann.ListViews(pb.ListViewsRequest(parent=ANN))).views) == []


async def test_history_survives_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(serving(tmp_path, clock=clock, history=build))
        nobody = await stack.enter_async_context(channel_of(process))
        world = World(process, stack, clock, history_pb2_grpc.HistoryServiceStub(nobody))
        recorded = await world.record(world.lease(), 1, 10, (0, 10))
    async with serving(tmp_path, clock=clock, history=build) as process:
        token = user_token(process, "users/ann")
        async with channel_of(process, token) as channel:
            stub: Any = history_pb2_grpc.HistoryServiceStub(channel)
            assert (await stub.GetView(pb.GetViewRequest(name=recorded.name))).view == recorded
