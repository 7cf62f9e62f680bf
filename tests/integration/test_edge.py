"""The edge of a playback node, as an operator and a viewer meet it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from cli.client import CredentialFile, Credentials
from kino.playback.v1 import edge_pb2 as pb
from kino.playback.v1.edge_pb2_grpc import EdgeServiceStub
from kino.playback.v1.playback_pb2 import RenewLeaseRequest
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.playback.bootstrap import build as build_playback
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, settings_in, user_token
from tests.support.published import Film, Publisher
from tests.support.streams import play
from tests.support.watching import VIEWER, Plans, accounts, start

OPERATOR = "users/op"


@asynccontextmanager
async def node(tmp_path: Path, **settings: Any) -> AsyncIterator[Running]:
    """A node with a disk, and all that it asks."""
    async with serving(
        tmp_path,
        clock=ManualClock(),
        settings=settings_in(tmp_path, **{"edge_disk_bytes": 1 << 30, **settings}),
        catalog=build_catalog,
        history=build_history,
        billing=Plans(limits={VIEWER: 9}).build,
        identity=accounts,
        playback=build_playback,
    ) as process:
        yield process


@asynccontextmanager
async def alone(tmp_path: Path, at: timedelta = timedelta(), **settings: Any) -> AsyncIterator[Running]:
    """The same node started again so much later, without its origin and the other services."""
    clock = ManualClock()
    clock.advance(at)
    nobody = dict.fromkeys(("catalog", "history", "billing", "identity"), "127.0.0.1:9")
    away = {"objects_dir": tmp_path / "empty", "endpoints": nobody}
    given = settings_in(tmp_path, **{"edge_disk_bytes": 1 << 30, **away, **settings})
    async with serving(tmp_path, clock=clock, settings=given, playback=build_playback) as process:
        yield process


@asynccontextmanager
async def viewer(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
        yield PlaybackServiceStub(channel)


async def explained(process: Running, title: str, **fields: Any) -> pb.ExplainResponse:
    async with channel_of(process, user_token(process, OPERATOR, "operator")) as channel:
        return await EdgeServiceStub(channel).Explain(pb.ExplainRequest(title=title, **fields))


async def watched(process: Running, title: str) -> None:
    """Watch its first segment in 240 lines."""
    async with viewer(process) as stub:
        token = (await start(stub, title)).lease.token
        await play(stub, token, 0, max_height=240, segment_count=1)


async def test_an_operator_is_told_what_is_kept_and_why_not_the_rest(tmp_path: Path, film: Film) -> None:
    async with node(tmp_path) as process:
        title = await Publisher(process, film).publish_all()
        await watched(process, title)
        await watched(process, title)
        answer = await explained(process, title, rendition_id="h264-240", segment_number=0)
        [shown] = answer.renditions
        assert (shown.rank, shown.kept_count > 1, shown.kept_bytes > 0) == (1, True, True)
        assert answer.segment.kept
        assert answer.segment.in_memory
        assert answer.edge.kept_bytes <= answer.edge.budget_bytes == 1 << 30
        [misses] = answer.edge.misses
        assert (misses.cause, misses.size_bytes) == (pb.MISS_CAUSE_FIRST_ASK, answer.edge.kept_bytes)
        other = await explained(process, title, rendition_id="h264-360", segment_number=0)
        assert not other.segment.kept
        assert not other.segment.cause


async def kino(process: Running, folder: Path, *argv: str) -> str:
    """What the command prints to an operator that asks the node itself."""
    url, path = f"http://{process.address}", folder / "credentials.json"
    token = user_token(process, OPERATOR, "operator")
    credentials = Credentials(
        user=OPERATOR, access_token=token, refresh_token="", expires="2999-01-01T00:00Z"
    )
    CredentialFile(path).save(url, credentials)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "--url", url, *argv),
        env={**os.environ, "KINO_CREDENTIALS": str(path), "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await running.communicate()
    assert running.returncode == 0, out.decode()
    return out.decode()


async def test_the_command_says_in_words_what_is_kept_and_why(tmp_path: Path, film: Film) -> None:
    async with node(tmp_path) as process:
        title = await Publisher(process, film).publish_all()
        await watched(process, title)
        segment = ("--rendition", "h264-240", "--segment")
        kept = await kino(process, tmp_path, "edge", "explain", title, *segment, "0")
        assert "Segment 0 of h264-240, worth 1.00, is on the disk. It is in memory." in kept
        assert "first ask" in kept
        other = await kino(
            process, tmp_path, "edge", "explain", title, "--rendition", "h264-360", *segment[2:], "0"
        )
        assert "is not on the disk: this node was never asked for it." in other
        assert "not played" in other


async def test_what_was_delivered_is_told_and_its_cost_by_source(tmp_path: Path, film: Film) -> None:
    async with node(tmp_path) as process:
        title = await Publisher(process, film).publish_all()
        for _ in range(3):
            await watched(process, title)
        report = json.loads(await kino(process, tmp_path, "--json", "edge", "cost"))
        found = {line["name"]: line for line in report["lines"]}
        kept = (await explained(process, title)).edge.kept_bytes
        assert found["from the origin"]["size_bytes"] == kept
        assert found["delivered"]["size_bytes"] > kept
        memory = found["delivered"]["size_bytes"] - kept
        assert (found["from memory"]["size_bytes"], found["from the disk"]["size_bytes"]) == (memory, 0)
        assert report["prices_as_of"]
        assert "Prices are of" in await kino(process, tmp_path, "edge", "cost")


async def test_an_operator_sees_what_would_be_fetched_and_when(tmp_path: Path, film: Film) -> None:
    async with node(tmp_path, edge_fill_hours="02:00-06:00", edge_fill_bytes_per_s=1_000_000) as process:
        title = await Publisher(process, film).publish_all()
        await watched(process, title)
        async with channel_of(process, user_token(process, OPERATOR, "operator")) as channel:
            plan = await EdgeServiceStub(channel).GetPlan(pb.GetPlanRequest())
        assert (plan.fill_hours, plan.filling, plan.fill_bytes_per_second) == (
            "02:00-06:00",
            False,
            1_000_000,
        )
        assert {one.title for one in plan.renditions} == {title}
        assert {one.rendition_id for one in plan.renditions} == {"h264-240", "aac-128-und-0"}
        shown = await kino(process, tmp_path, "edge", "plan")
        assert "Fetched from 02:00-06:00 UTC (not now), at 1,000,000 bytes a second." in shown
        assert title in shown


async def test_a_segment_beyond_the_budget_is_told_as_such(tmp_path: Path, film: Film) -> None:
    async with node(tmp_path, edge_disk_bytes=2_000) as process:
        title = await Publisher(process, film).publish_all()
        await watched(process, title)
        answer = await explained(process, title, rendition_id="h264-240", segment_number=0)
        assert (answer.segment.kept, answer.segment.cause) == (False, pb.MISS_CAUSE_TOO_BIG)
        init = await explained(process, title, rendition_id="h264-240", segment_number=-1)
        assert init.segment.kept


async def first_segment(process: Running, token: str) -> bytes:
    async with viewer(process) as stub:
        return (await play(stub, token, 0, max_height=240, segment_count=1)).stream()


async def test_a_node_that_starts_without_origin_and_catalog_serves_what_it_keeps_to_who_has_a_lease(
    tmp_path: Path, film: Film
) -> None:
    async with node(tmp_path) as process:
        title = await Publisher(process, film).publish_all()
        async with viewer(process) as stub:
            token = (await start(stub, title)).lease.token
        before = await first_segment(process, token)
    async with alone(tmp_path, timedelta(seconds=30)) as process:
        assert await first_segment(process, token) == before
        async with viewer(process) as stub:
            with pytest.raises(grpc.aio.AioRpcError):
                await start(stub, title)
            whole = play(stub, token, 0, max_height=360)
            assert await refused(whole) == "UNAVAILABLE"


async def test_an_edge_that_starts_while_playback_is_away_goes_on_with_a_renewed_lease_past_its_first_end(
    tmp_path: Path, film: Film
) -> None:
    async with node(tmp_path) as process:
        title = await Publisher(process, film).publish_all()
        async with viewer(process) as stub:
            token = (await start(stub, title)).lease.token
            before = await first_segment(process, token)
            for _ in range(2):
                cast(ManualClock, process.context.clock).advance(45)
                await stub.RenewLease(RenewLeaseRequest(lease_token=token))
    nobody = dict.fromkeys(("playback", "catalog", "history", "billing", "identity"), "127.0.0.1:9")
    edge = {"edge_address": "http://127.0.0.1:9", "endpoints": nobody}
    async with alone(tmp_path, timedelta(seconds=100), **edge) as process:
        assert await first_segment(process, token) == before
    async with alone(tmp_path, timedelta(hours=1), **edge) as process:
        assert await refused(first_segment(process, token)) == "UNAVAILABLE"


@pytest.mark.parametrize("stale_s", [0, 20])
async def test_what_catalog_told_serves_no_longer_than_the_setting_allows(
    tmp_path: Path, film: Film, stale_s: int
) -> None:
    async with node(tmp_path, playback_stale_s=stale_s) as process:
        title = await Publisher(process, film).publish_all()
        async with viewer(process) as stub:
            token = (await start(stub, title)).lease.token
        await first_segment(process, token)
    async with alone(tmp_path, timedelta(seconds=30), playback_stale_s=stale_s) as process:
        assert await refused(first_segment(process, token)) == "UNAVAILABLE"


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_of(caught.value).reason


async def test_only_operators_are_told_and_only_of_what_there_is(tmp_path: Path, film: Film) -> None:
    async with node(tmp_path) as process:
        title = await Publisher(process, film).publish_all()
        async with channel_of(process, user_token(process, VIEWER, "publisher")) as channel:
            request = pb.ExplainRequest(title=title)
            assert await refused(EdgeServiceStub(channel).Explain(request)) == "ROLE_MISSING"
        assert await refused(explained(process, "titles/none")) == "TITLE_NOT_FOUND"
        assert await refused(explained(process, title, rendition_id="none")) == "RENDITION_NOT_FOUND"
        assert await refused(explained(process, title, segment_number=1)) == "VALIDATION_FAILED"
        far = explained(process, title, rendition_id="h264-240", segment_number=99)
        assert await refused(far) == "SEGMENT_OUT_OF_RANGE"


async def test_a_node_without_a_disk_says_how_to_give_it_one(tmp_path: Path) -> None:
    async with node(tmp_path, edge_disk_bytes=0) as process:
        assert await refused(explained(process, "titles/any")) == "EDGE_WITHOUT_DISK"
