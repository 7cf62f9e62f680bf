from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import grpc.aio
import imageio_ffmpeg
import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from cli.client import Kino
from cli.commands.play import Stream
from cli.gateway import Gateway
from cli.up import _free_port
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.media.testfilm import read_frame_number
from services.page import bootstrap as page
from services.page.model import SECURITY
from services.playback.bootstrap import build as build_playback
from services.playback.readers import Readers
from services.runtime.app import Context, ServiceApp, running
from services.runtime.clock import SystemClock
from services.runtime.keys import open_keys
from services.runtime.testing import bearer, serving, settings_in, user_token
from tests.support.long_title import LongTitle
from tests.support.published import Film, Publisher
from tests.support.watching import FILM, VIEWER, Plans, accounts, start

SCRIPT, BROTLI = b"console.log(1);" * 9000, b"\x0b compressed"


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A title that is being watched through the gateway."""

    port: int
    #: `/v1/playback/{lease_token}`.
    base: str
    hls_path: str
    dash_path: str
    stub: Any
    token: str

    async def fetch(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return await asyncio.to_thread(self._fetch, path, method, headers)

    def _fetch(self, path: str, method: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            got = {key.lower(): value for key, value in response.getheaders()}
            return Answer(status=response.status, headers=got, body=response.read())
        finally:
            connection.close()


@pytest_asyncio.fixture
async def gate(tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_bytes(b"<!doctype html>")
    (dist / "assets" / "index-Ab12_x-9.js").write_bytes(SCRIPT)
    (dist / "assets" / "index-Ab12_x-9.js.br").write_bytes(BROTLI)
    monkeypatch.setattr(page, "DIST", dist)
    settings = settings_in(tmp_path)
    port = _free_port("127.0.0.1", 0)
    jwks = open_keys(settings.keys_folder).jwks_path
    gateway = Gateway(
        tmp_path / "gateway", bind="127.0.0.1", port=port, jwks=jwks, log_path=tmp_path / "gateway.log"
    )
    await gateway.child.start()
    services = {"catalog": build_catalog, "playback": build_playback, "page": page.build}
    plans = Plans(limits={VIEWER: 9})
    try:
        async with serving(
            tmp_path, settings=settings, clock=None, billing=plans.build, identity=accounts, **services
        ) as process:
            gateway.set_endpoints({name: [process.address] for name in services})
            title = await Publisher(process, film).publish_all()
            metadata = bearer(user_token(process, VIEWER, "viewer"))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = PlaybackServiceStub(channel)
                started = await _started(stub, title, metadata)
                token = started.lease.token
                yield Gate(
                    port=port,
                    base=f"/v1/playback/{token}",
                    hls_path=started.hls_path,
                    dash_path=started.dash_path,
                    stub=stub,
                    token=token,
                )
    finally:
        await gateway.child.stop()


async def _started(stub: Any, title: str, metadata: Any) -> pb.StartPlaybackResponse:
    for _ in range(200):
        try:
            return await start(stub, title, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(0.05)
    raise AssertionError("the gateway did not find its endpoints")


def decoded(url: str) -> list[int | None]:
    """The numbers of the frames that FFmpeg's own HLS or DASH player shows of the first pictures."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", url]
    argv += ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    frames = np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, 360, 640)
    return [read_frame_number(frame) for frame in frames]


async def test_hls_and_dash_players_show_every_frame(gate: Gate) -> None:
    for path in (gate.hls_path, gate.dash_path):
        numbers = await asyncio.to_thread(decoded, f"http://127.0.0.1:{gate.port}{path}")
        assert numbers == list(range(FILM.frame_count))


async def test_manifests_are_served_with_their_types_and_revalidated(gate: Gate) -> None:
    for path, kind in (
        (gate.hls_path, "application/vnd.apple.mpegurl"),
        (gate.dash_path, "application/dash+xml"),
    ):
        first = await gate.fetch(path)
        assert (first.status, first.headers["content-type"]) == (200, kind)
        assert int(first.headers["content-length"]) == len(first.body)
        assert first.headers["cache-control"] == "private, no-cache"
        head = await gate.fetch(path, method="HEAD")
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", first.headers["etag"])
        again = await gate.fetch(path, if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")


async def test_a_manifest_is_compressed_whole_for_a_reader_that_takes_that(gate: Gate) -> None:
    plain, small = await gate.fetch(gate.dash_path), await gate.fetch(gate.dash_path, accept_encoding="gzip")
    assert (plain.headers.get("content-encoding"), small.headers["content-encoding"]) == (None, "gzip")
    assert (int(small.headers["content-length"]), gzip.decompress(small.body)) == (
        len(small.body),
        plain.body,
    )
    assert len(small.body) < len(plain.body) / 2
    again = await gate.fetch(gate.dash_path, accept_encoding="gzip", if_none_match=small.headers["etag"])
    assert (again.status, again.body) == (304, b"")


async def test_ranges_of_a_segment_are_its_bytes(gate: Gate, film: Film) -> None:
    path, stored = f"{gate.base}/segments/h264-360/1.m4s", film.segments("h264-360")[1].data
    size = len(stored)
    whole = await gate.fetch(path)
    assert (whole.status, whole.body, whole.headers["accept-ranges"]) == (200, stored, "bytes")
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["cache-control"] == "private, max-age=86400, immutable"
    part = await gate.fetch(path, range="bytes=100-299")
    assert (part.status, part.body, part.headers["content-range"]) == (
        206,
        stored[100:300],
        f"bytes 100-299/{size}",
    )
    tail = await gate.fetch(path, range="bytes=-7")
    assert (tail.status, tail.body) == (206, stored[-7:])
    same = await gate.fetch(path, range="bytes=0-0", if_range=whole.headers["etag"])
    changed = await gate.fetch(path, range="bytes=0-0", if_range='"another"')
    assert (same.status, same.body, changed.status, changed.body) == (206, stored[:1], 200, stored)
    beyond = await gate.fetch(path, range=f"bytes={size}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    known = await gate.fetch(path, if_none_match=whole.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    head = await gate.fetch(path, method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(size))


async def test_an_init_segment_is_served_as_stored(gate: Gate, film: Film) -> None:
    got = await gate.fetch(f"{gate.base}/segments/opus-128-und-0/init.mp4")
    assert (got.body, got.headers["content-type"]) == (film.one("opus-128-und-0").init, "audio/mp4")


async def test_what_is_not_there_is_refused_with_a_reason(gate: Gate) -> None:
    paths = ["segments/h264-360/9.m4s", "segments/vp9-1/0.m4s", "manifests/nothing.m3u8"]
    got = [await gate.fetch(f"{gate.base}/{path}") for path in paths]
    assert [
        (answer.status, b"_OUT_OF_RANGE" in answer.body, b"_NOT_FOUND" in answer.body) for answer in got
    ] == [
        (400, True, False),
        (404, False, True),
        (404, False, True),
    ]


async def test_an_ended_playback_serves_nothing_more(gate: Gate) -> None:
    await gate.stub.EndPlayback(pb.EndPlaybackRequest(lease_token=gate.token))
    got = await gate.fetch(f"{gate.base}/segments/h264-360/1.m4s")
    assert (got.status, b"LEASE_ENDED" in got.body) == (400, True)


class Held:
    """A stub whose streams stop at their twentieth message until they are let go."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.held = self.moved = 0
        self.go = asyncio.Event()

    def stub(self, _: object) -> Held:
        return self

    async def Play(self, request: pb.PlayRequest) -> AsyncIterator[pb.PlayResponse]:  # noqa: N802
        count = 0
        self.moved += request.HasField("resume")
        async for message in self._stub.Play(request):
            yield message
            count += 1
            if count == 20 and not request.HasField("resume"):
                self.held += 1
                await self.go.wait()


async def test_a_viewer_of_a_node_that_goes_down_gets_every_byte_from_another(
    tmp_path: Path, film: Film
) -> None:
    settings, port = settings_in(tmp_path), _free_port("127.0.0.1", 0)
    jwks = open_keys(settings.keys_folder).jwks_path
    gateway = Gateway(
        tmp_path / "gateway", bind="127.0.0.1", port=port, jwks=jwks, log_path=tmp_path / "gateway.log"
    )
    await gateway.child.start()
    plans = Plans(limits={VIEWER: 9})
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.child.stop)
        core = await stack.enter_async_context(
            serving(
                tmp_path,
                settings=settings,
                clock=SystemClock(),
                catalog=build_catalog,
                billing=plans.build,
                identity=accounts,
            )
        )

        async def playback(ctx: Context) -> ServiceApp:
            """Playback on the database of the first process, as nodes share one at scale."""
            return await build_playback(replace(ctx, _databases=core.context._databases))

        there = dict.fromkeys(("catalog", "billing", "identity", "history"), core.address)
        beside = settings_in(tmp_path, endpoints=there, drain_s=2.5, grace_s=10)
        nodes = [AsyncExitStack(), AsyncExitStack()]
        watched: list[Readers] = []
        addresses = []
        for node in nodes:
            stack.push_async_callback(node.aclose)
            process = await node.enter_async_context(running(beside, {"playback": playback}))
            addresses.append(process.address)
            watched.append(process.apps[0].leave.__self__)  # type: ignore[attr-defined]
        gateway.set_endpoints({"playback": addresses, "catalog": [core.address]})
        title = await LongTitle(segment_count=60, video_bytes=400_000, audio_bytes=1000).publish(core, film)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = PlaybackServiceStub(channel)
            metadata = bearer(user_token(core, VIEWER, "viewer"))
            tokens = [(await _started(stub, title, metadata)).lease.token for _ in range(4)]
            held = Held(stub)
            viewers = [
                Stream(token=token, duration=Duration(), until=None, sink=io.BytesIO()) for token in tokens
            ]
            reads = [
                asyncio.create_task(viewer.read(cast(Kino, held), pb.PlayRequest(lease_token=viewer.token)))
                for viewer in viewers
            ]
            await eventually(lambda: held.held == len(viewers))
            gone = next(index for index, readers in enumerate(watched) if readers._readers)
            moved = len(watched[gone]._readers)
            down = asyncio.create_task(nodes[gone].aclose())
            await eventually(lambda: watched[gone].leaving)
            held.go.set()
            await asyncio.gather(down, *reads)
    assert held.moved == moved
    assert {viewer.media_bytes for viewer in viewers} == {60 * 401_000}
    assert len({viewer.sink.getvalue() for viewer in viewers}) == 1  # type: ignore[union-attr]


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


async def test_the_page_comes_compressed_cached_and_guarded(gate: Gate) -> None:
    root = await gate.fetch("/")
    assert (root.status, root.body, root.headers["content-type"]) == (
        200,
        b"<!doctype html>",
        "text/html; charset=utf-8",
    )
    assert {name: root.headers.get(name) for name, _ in SECURITY} == dict(SECURITY)
    path = "/assets/index-Ab12_x-9.js"
    plain, small = await gate.fetch(path), await gate.fetch(path, accept_encoding="gzip, br")
    assert (plain.body, small.body, small.headers["content-encoding"]) == (SCRIPT, BROTLI, "br")
    again = await gate.fetch(path, if_none_match=plain.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    head = await gate.fetch(path, method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(SCRIPT)))
    missing = await gate.fetch("/nothing.js")
    assert missing.status == 404
