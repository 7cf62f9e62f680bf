"""What runs for `kino bench playback`: the services, every way to serve the title, and their reader."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import grpc.aio

from bench.servers import Certificate, Nginx, Reader, Server, built_peers, free_port, started
from cli.gateway import Gateway
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.encoder.model import VideoCodec
from services.history.bootstrap import build as build_history
from services.runtime.app import Running
from services.runtime.clock import SystemClock
from services.runtime.keys import open_keys
from services.runtime.objects_s3 import S3Objects
from services.runtime.s3 import Bucket
from services.runtime.testing import bearer, serving, settings_in, user_token
from tests.engines.s3 import seaweedfs
from tests.support.long_title import LongTitle
from tests.support.published import encode_film
from tests.support.watching import CUTS, RUNGS, SPEC, VIEWER, Plans, accounts, start

MIB = 1 << 20
#: Six seconds at 4.2 Mbit/s of pictures and 128 kbit/s of sound; 33 of them are 102 MiB.
TITLE = LongTitle(segment_count=33, video_bytes=3 * MIB, audio_bytes=96 << 10)
_CACHE_BYTES = 512 * MIB
_BUCKET = "bench"


@dataclass(kw_only=True)
class Contestant:
    """A way to serve the title."""

    name: str
    servers: Sequence[Server]
    plan: dict[str, Any]
    #: Makes the Play requests of a gRPC server, each with a lease of its own.
    requests: Requests | None = None
    cpu_s_per_gib: list[float] = field(default_factory=list)
    firsts_ms: list[float] = field(default_factory=list)

    #: Bytes per second of many streams at once.
    rates: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """Median, CPU-seconds per GiB."""
        return median(self.cpu_s_per_gib)

    @property
    def cpu_s(self) -> float:
        """Processor time of its servers so far."""
        return sum(server.cpu_s for server in self.servers)

    async def streams(self, count: int) -> dict[str, Any]:
        """The plan of so many streams, each with a lease of its own."""
        if self.requests is None:
            return dict(self.plan)
        return {**self.plan, "requests": await self.requests.make(count)}


@dataclass(frozen=True, kw_only=True)
class Field:
    """All that runs."""

    reader: Reader
    contestants: Mapping[str, Contestant]
    kino: Server
    go: Server


def cache() -> Path:
    """Where programs that were built for benchmarks are kept."""
    base = os.environ.get("KINO_CACHE") or Path.home() / ".cache" / "kino"
    return Path(base) / "bench"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Field]:
    """Start everything; ends with it."""
    program = built_peers(cache())
    tls = Certificate.made(folder)
    async with AsyncExitStack() as stack:
        core = await stack.enter_async_context(_core(folder))
        film = await encode_film(folder, SPEC, CUTS, {VideoCodec.H264: RUNGS[VideoCodec.H264][:1]})
        title = await TITLE.publish(core, film)
        nodes = await _nodes(stack, folder, core, tls)
        kino = nodes["kino"]
        requests = Requests(core, title, kino.server.address)
        messages = folder / "messages"
        await _dump(kino.server.address, (await requests.make(1))[0], messages)
        go = await _go(program, messages, folder)
        stack.callback(go.stop)
        nginx = await Nginx.run(folder, _files(folder), tls)
        stack.callback(nginx.server.stop)
        gates = {
            name: await _gateway(stack, folder / f"envoy-{name}", core, servers)
            for name, servers in {
                "kino": [kino.server],
                "two": [kino.server, nodes["second"].server],
                "cold": [nodes["cold"].server],
                "cold-s3": [nodes["cold, s3"].server],
                "go": [go],
            }.items()
        }
        reader = await Reader.run(program)
        stack.callback(reader.stop)
        contestants = [*_plays(nodes, go, gates, requests), *_fetches(nginx)]
        named = {contestant.name: contestant for contestant in contestants}
        yield Field(reader=reader, kino=kino.server, go=go, contestants=named)


@dataclass(frozen=True)
class _Kino:
    server: Server
    tls_address: str


async def _nodes(stack: AsyncExitStack, folder: Path, core: Running, tls: Certificate) -> dict[str, _Kino]:
    """Playback nodes: one in memory, a second beside it, and two that read the origin for every request."""
    kino = await _kino(folder, core, tls, "kino", {})
    stack.callback(kino.server.stop)
    bucket = await _bucket(stack, folder, core)
    port = free_port()
    beside = {
        "KINO_EDGE_ADDRESS": f"http://127.0.0.1:{port}",
        "KINO_EDGE_DISK_BYTES": str(512 * MIB),
        "KINO_STREAM_PORT": str(port),
    }
    cold = {"KINO_PLAYBACK_CACHE_BYTES": str(MIB)}
    made = {
        "second": await _kino(folder, core, tls, "second", beside, leases_at=kino.server.address),
        "cold": await _kino(folder, core, tls, "cold", cold),
        "cold, s3": await _kino(folder, core, tls, "cold-s3", cold | bucket),
    }
    for node in made.values():
        stack.callback(node.server.stop)
    return {"kino": kino, **made}


def _plays(
    nodes: Mapping[str, _Kino], go: Server, gates: Mapping[str, Server], requests: Requests
) -> list[Contestant]:
    def play(name: str, address: str, *servers: Server, tls: bool = False) -> Contestant:
        plan = {"protocol": "grpc", "address": address, "tls": tls}
        return Contestant(name=name, servers=servers, plan=plan, requests=requests)

    kino, second = nodes["kino"], nodes["second"].server
    every = [
        play("kino", kino.server.address, kino.server),
        play("go", go.address, go),
        play("kino, envoy", gates["kino"].address, kino.server, gates["kino"]),
        play("go, envoy", gates["go"].address, go, gates["go"]),
        play("kino, tls", kino.tls_address, kino.server, tls=True),
        play("two kino, envoy", gates["two"].address, kino.server, second, gates["two"]),
    ]
    for name, gate in (("cold", gates["cold"]), ("cold, s3", gates["cold-s3"])):
        server = nodes[name].server
        both = [
            play(f"kino, {name}", server.address, server),
            play(f"kino, {name}, envoy", gate.address, server, gate),
        ]
        for one in both:
            one.requests = requests.at(server.address)
        every += both
    return every


def _fetches(nginx: Nginx) -> list[Contestant]:
    paths = [f"/{number}.m4s" for number in range(TITLE.segment_count)]

    def http(name: str, protocol: str, address: str, tls: bool = False) -> Contestant:
        plan = {"protocol": protocol, "address": address, "tls": tls, "requests": paths}
        return Contestant(name=name, servers=[nginx.server], plan=plan)

    return [
        http("nginx h2c", "h2", nginx.default),
        http("nginx h2c tuned", "h2", nginx.tuned),
        http("nginx h1 sendfile", "h1", nginx.h1),
        http("nginx h2, tls", "h2", nginx.tls, tls=True),
    ]


@asynccontextmanager
async def _core(folder: Path) -> AsyncIterator[Running]:
    """The services that playback asks, in this process."""
    plans = Plans(limits={VIEWER: 100_000})
    async with serving(
        folder,
        settings=settings_in(folder, lease_ttl_s=3600, log_level="error"),
        clock=SystemClock(),
        catalog=build_catalog,
        history=build_history,
        billing=plans.build,
        identity=accounts,
    ) as process:
        yield process


async def _kino(
    folder: Path, core: Running, tls: Certificate, name: str, more: Mapping[str, str], leases_at: str = ""
) -> _Kino:
    """A playback node; an edge where the leases are another one's."""
    tls_port = free_port()
    endpoints = dict.fromkeys(("catalog", "history", "billing", "identity"), core.address)
    if leases_at:
        endpoints["playback"] = leases_at
    env = {
        "KINO_DATA_DIR": str(folder / f"node-{name}"),
        "KINO_KEYS_DIR": str(core.context.settings.keys_folder),
        "KINO_OBJECTS_DIR": str(core.context.settings.objects_folder),
        "KINO_ENDPOINTS": json.dumps(endpoints),
        "KINO_STREAM_PORT": str(free_port()),
        "KINO_TLS_PORT": str(tls_port),
        "KINO_TLS_CERTIFICATE": str(tls.certificate),
        "KINO_TLS_KEY": str(tls.key),
        "KINO_PLAYBACK_CACHE_BYTES": str(_CACHE_BYTES),
        "KINO_LEASE_TTL_S": "3600",
        "KINO_LOG_LEVEL": "error",
        **more,
    }
    program = str(Path(sys.executable).with_name("kino"))
    argv = [program, "serve", "edge" if leases_at else "playback"]
    address = f"127.0.0.1:{env['KINO_STREAM_PORT']}"
    server = await started(argv, address, folder / f"{name}.log", env)
    return _Kino(server, f"127.0.0.1:{tls_port}")


async def _bucket(stack: AsyncExitStack, folder: Path, core: Running) -> dict[str, str]:
    """SeaweedFS with a copy of all objects; the settings of a node that reads from it."""
    (folder / "s3").mkdir()
    server = seaweedfs(folder / "s3")
    await asyncio.to_thread(server.start)
    stack.callback(server.stop)
    bucket = Bucket(
        url=server.url,
        name=_BUCKET,
        region="us-east-1",
        access_key=server.access_key,
        secret_key=server.secret_key,
        connections=8,
    )
    await _filled(bucket, folder, core)
    return {
        "KINO_OBJECTS_STORE": "s3",
        "KINO_S3_URL": server.url,
        "KINO_S3_BUCKET": _BUCKET,
        "KINO_S3_ACCESS_KEY": server.access_key,
        "KINO_S3_SECRET_KEY": server.secret_key,
    }


async def _filled(bucket: Bucket, folder: Path, core: Running) -> None:
    objects = S3Objects(bucket, scratch=folder / "s3-scratch")
    await objects.open()
    async for entry in core.context.objects.list():
        await objects.put(entry.key, await core.context.objects.get(entry.key))
    await objects.close()


async def _go(program: Path, messages: Path, folder: Path) -> Server:
    address = f"127.0.0.1:{free_port()}"
    return await started([str(program), "serve", address, str(messages)], address, folder / "go.log")


async def _gateway(stack: AsyncExitStack, folder: Path, core: Running, servers: Sequence[Server]) -> Server:
    jwks = open_keys(core.context.settings.keys_folder).jwks_path
    log = folder.with_suffix(".log")
    gateway = Gateway(folder, bind="127.0.0.1", port=free_port(), jwks=jwks, log_path=log)
    gateway.set_endpoints({"playback": [server.address for server in servers]})
    await gateway.child.start()
    stack.push_async_callback(gateway.child.stop)

    class _Pid:
        pid = gateway.child.pid

    return Server(_Pid, gateway.url.removeprefix("http://"))  # type: ignore[arg-type]


def _files(folder: Path) -> Path:
    """The same bytes as files: pictures and sound of a segment in one."""
    root = folder / "www"
    root.mkdir()
    for number in range(TITLE.segment_count):
        content = number.to_bytes(4) * ((TITLE.video_bytes + TITLE.audio_bytes) // 4)
        (root / f"{number}.m4s").write_bytes(content)
    return root


@dataclass(frozen=True)
class Requests:
    """Starts playbacks, and makes their Play requests for the reader."""

    core: Running
    title: str
    address: str

    def at(self, address: str) -> Requests:
        """The same on another node."""
        return replace(self, address=address)

    async def make(self, count: int) -> list[str]:
        """So many requests, each with a lease of its own."""
        metadata = bearer(user_token(self.core, VIEWER, "viewer"))
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = PlaybackServiceStub(channel)
            tokens: list[str] = []
            while len(tokens) < count:
                wanted = min(50, count - len(tokens))
                batch = await asyncio.gather(
                    *(start(stub, self.title, metadata=metadata) for _ in range(wanted))
                )
                tokens += [started.lease.token for started in batch]
        made = []
        for token in tokens:
            request = pb.PlayRequest(lease_token=token)
            request.offset.FromNanoseconds(0)
            made.append(base64.b64encode(request.SerializeToString()).decode())
        return made


async def _dump(address: str, request: str, path: Path) -> None:
    """The messages of one stream, as the Go server sends them: in the large cuts that are best for it."""
    channel_options = [("grpc.max_receive_message_length", 8 * MIB)]
    async with grpc.aio.insecure_channel(address, options=channel_options) as channel:
        call = channel.unary_stream(
            "/kino.playback.v1.PlaybackService/Play",
            request_serializer=lambda data: data,
            response_deserializer=lambda data: data,
        )
        with path.open("wb") as out:
            async for message in call(base64.b64decode(request)):
                out.write(len(message).to_bytes(8, "big") + message)
