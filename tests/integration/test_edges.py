"""Two edges as processes of their own, before a playback service that alone has the database."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest

from cli.client import Kino, channel_to
from cli.playing import stream
from kino.playback.v1 import edges_pb2 as api
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.edges_pb2_grpc import EdgeRegistryServiceStub
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.playback import edges
from services.playback.bootstrap import build as build_playback
from services.playback.store_edges import SqlEdges
from services.runtime.app import Running
from services.runtime.testing import bearer, channel_of, serving, settings_in, user_token
from tests.engines.process import free_port
from tests.support.edges import EdgeNode
from tests.support.long_title import LongTitle
from tests.support.published import Film, Publisher
from tests.support.stack import refusal
from tests.support.streams import play
from tests.support.watching import VIEWER, Plans, accounts, start

LONG = LongTitle(segment_count=60, video_bytes=400_000, audio_bytes=1000)
WITHIN_S = 60.0


@dataclass(kw_only=True)
class Gateway:
    """Takes the place of the command's connection to the gateway; counts the streams asked for there."""

    channel: grpc.aio.Channel
    plays: int = 0

    def stub(self, _: object) -> Gateway:
        return self

    def Play(self, request: pb.PlayRequest) -> Any:  # noqa: N802
        """As the playback service."""
        self.plays += 1
        return PlaybackServiceStub(self.channel).Play(request)


@dataclass(kw_only=True)
class Viewer:
    """Reads a stream as `kino play` does, and halts after the first few segments until told."""

    started: pb.StartPlaybackResponse
    data: bytearray = field(default_factory=bytearray)
    halted: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, gateway: Gateway) -> None:
        """To the end."""
        request = pb.PlayRequest(lease_token=self.started.lease.token)
        async for message in stream(cast(Kino, gateway), request, self.started.edge_addresses):
            self.data += message.media.data
            if message.media.segment_number >= 3:
                self.halted.set()
                await self.go.wait()


@pytest.fixture
async def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    # However slow this machine is: whom the origin sent counts all through the test.
    monkeypatch.setattr(edges, "_ARRIVED_AFTER", timedelta(hours=1))
    async with serving(
        tmp_path,
        catalog=build_catalog,
        history=build_history,
        billing=Plans(limits={VIEWER: 9}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


@pytest.fixture
async def nodes(origin: Running, tmp_path: Path) -> AsyncIterator[dict[str, EdgeNode]]:
    async with AsyncExitStack() as stack:
        settings = origin.context.settings
        made = [EdgeNode.launched(tmp_path / f"edge-{n}", origin.address, settings) for n in (1, 2)]
        for node in made:
            stack.push_async_callback(asyncio.to_thread, node.process.stop)
        for node in made:
            await asyncio.to_thread(node.wait)
        await known(origin, lambda found: [edge.state for edge in found] == [api.Edge.STATE_LIVE] * 2)
        yield {node.address: node for node in made}


async def known(origin: Running, holds: Any) -> list[api.Edge]:
    """The edges as an operator sees them, once `holds` says so."""
    async with channel_of(origin, user_token(origin, "users/op", "operator")) as channel:
        stub, deadline = EdgeRegistryServiceStub(channel), asyncio.get_running_loop().time() + WITHIN_S
        while True:
            found = list((await stub.ListEdges(api.ListEdgesRequest())).edges)
            if holds(found):
                return found
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.1)


async def test_streams_of_an_edge_that_is_lost_go_on_at_the_next_and_at_last_at_the_gateway(
    origin: Running, nodes: dict[str, EdgeNode], film: Film
) -> None:
    title = await LONG.publish(origin, film)
    async with channel_of(origin, user_token(origin, VIEWER, "viewer")) as channel:
        stub, gateway = PlaybackServiceStub(channel), Gateway(channel=channel)
        viewers = [Viewer(started=await start(stub, title)) for _ in range(3)]
        first, second = viewers[0].started.edge_addresses
        # Of three viewers of one title the third is beyond the bound of the edge that keeps it.
        routes = [list(viewer.started.edge_addresses) for viewer in viewers]
        assert routes == [[first, second], [first, second], [second, first]]
        assert {first, second} == set(nodes)

        watching = [asyncio.create_task(viewer.watch(gateway)) for viewer in viewers]
        await asyncio.gather(*(viewer.halted.wait() for viewer in viewers))
        found = await known(origin, lambda found: sum(edge.stream_count for edge in found) == 3)
        assert {edge.address: edge.stream_count for edge in found} == {first: 2, second: 1}
        assert all(edge.disk.used_bytes > 0 and edge.disk.budget_bytes == 64 << 20 for edge in found)

        await asyncio.to_thread(nodes[first].process.kill)
        await known(origin, lambda found: states(found)[first] == api.Edge.STATE_SILENT)
        assert list((await start(stub, title)).edge_addresses) == [second]
        viewers[0].go.set()
        await watching[0]
        assert gateway.plays == 0

        stopping = asyncio.create_task(asyncio.to_thread(nodes[second].process.stop))
        await known(origin, lambda found: states(found)[second] == api.Edge.STATE_LEFT)
        assert list((await start(stub, title)).edge_addresses) == []
        for viewer in viewers:
            viewer.go.set()
        await asyncio.gather(stopping, *watching)
        assert gateway.plays == 2

        token = viewers[0].started.lease.token
        whole = await play(stub, token, 0)
    media = b"".join(chunk.data for chunk in whole.media)
    assert len(media) == 60 * 401_000
    assert [bytes(viewer.data) == media for viewer in viewers] == [True] * 3


def states(found: list[api.Edge]) -> dict[str, Any]:
    return {edge.address: edge.state for edge in found}


async def test_a_stream_of_an_edge_that_froze_goes_on_at_the_next(
    origin: Running, nodes: dict[str, EdgeNode], film: Film
) -> None:
    title = await LONG.publish(origin, film)
    async with channel_of(origin, user_token(origin, VIEWER, "viewer")) as channel:
        gateway = Gateway(channel=channel)
        viewer = Viewer(started=await start(PlaybackServiceStub(channel), title))
        watching = asyncio.create_task(viewer.watch(gateway))
        await viewer.halted.wait()
        frozen = nodes[viewer.started.edge_addresses[0]].process.pid
        os.kill(frozen, signal.SIGSTOP)
        try:
            viewer.go.set()
            await watching
            assert gateway.plays == 0
        finally:
            os.kill(frozen, signal.SIGCONT)
        whole = await play(PlaybackServiceStub(channel), viewer.started.lease.token, 0)
    assert bytes(viewer.data) == b"".join(chunk.data for chunk in whole.media)


async def test_an_edge_on_the_shared_database_sends_viewers_to_itself_and_says_when_it_leaves(
    tmp_path: Path, film: Film
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = settings_in(tmp_path, stream_port=port, edge_address=address, edge_disk_bytes=1 << 26)
    plans = Plans(limits={VIEWER: 9})
    async with serving(
        tmp_path,
        settings=settings,
        catalog=build_catalog,
        billing=plans.build,
        identity=accounts,
        playback=build_playback,
    ) as both:
        title = await Publisher(both, film).publish_all()
        await known(both, lambda found: states(found) == {address: api.Edge.STATE_LIVE})
        async with channel_of(both, user_token(both, VIEWER, "viewer")) as channel:
            assert list((await start(PlaybackServiceStub(channel), title)).edge_addresses) == [address]
        database = both.context.database("playback")
        both.apps[-1].leave()
        await both.apps[-1].close()
        assert [each.report.leaving for each in await SqlEdges(database).edges()] == [True]


async def test_an_edge_streams_on_a_lease_of_the_origin_ends_it_there_and_starts_nothing(
    origin: Running, nodes: dict[str, EdgeNode], film: Film
) -> None:
    title = await LONG.publish(origin, film)
    async with channel_of(origin, user_token(origin, VIEWER, "viewer")) as channel:
        stub = PlaybackServiceStub(channel)
        started = await start(stub, title)
        token = started.lease.token
        async with channel_to(started.edge_addresses[0]) as direct:
            edge = PlaybackServiceStub(direct)
            assert (await play(edge, token, 0, segment_count=1)).header.frame_number == 0
            listed = pb.ListLeasesRequest(parent=VIEWER)
            assert len((await stub.ListLeases(listed)).leases) == 1
            await edge.EndPlayback(pb.EndPlaybackRequest(lease_token=token))
            assert len((await stub.ListLeases(listed)).leases) == 0
            again = await refusal(edge.RenewLease(pb.RenewLeaseRequest(lease_token=token)))
            assert again == ("FAILED_PRECONDITION", "LEASE_ENDED")
            metadata = bearer(user_token(origin, VIEWER, "viewer"))
            here = await refusal(start(edge, title, metadata=metadata))
            assert here == ("FAILED_PRECONDITION", "NOT_AT_AN_EDGE")
