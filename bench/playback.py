"""What a byte costs and how soon it comes: Kino's `Play` against what engineers would deploy instead.

All servers run on loopback in a network of their own, serve the same bytes, and are read by the same program,
one after the other in every round. Kino's `Play` is whole: token, lease in SQL, header, accounting.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import grpc.aio

from bench.network import enter_own_network
from bench.report import Report, Row, conditions
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
from services.runtime.logs import configure_logs
from services.runtime.testing import bearer, serving, settings_in, user_token
from tests.support.long_title import LongTitle
from tests.support.published import encode_film
from tests.support.watching import CUTS, RUNGS, SPEC, VIEWER, Plans, accounts, start

ROUNDS = 5
GIB, MIB = 1 << 30, 1 << 20
#: Six seconds at 4.2 Mbit/s of pictures and 128 kbit/s of sound; 33 of them are 102 MiB.
TITLE = LongTitle(segment_count=33, video_bytes=3 * MIB, audio_bytes=96 << 10)
_CACHE_BYTES = 512 * MIB
#: The kernel counts processor time in hundredths of a second: 0.005 s/GiB of a sample.
_SAMPLE_BYTES = 2 * GIB
#: Of the big test: viewers, bytes per second of each, how long they watch.
VIEWERS, RATE_BYTES, WATCH_S = 2000, 5_000_000 / 8, 25.0
STALLED = 500
_FIRSTS = 300


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

    @property
    def cost(self) -> float:
        """Median, CPU-seconds per GiB."""
        return median(self.cpu_s_per_gib)


@dataclass(frozen=True, kw_only=True)
class Field:
    """All that runs."""

    reader: Reader
    contestants: dict[str, Contestant]
    kino: Server
    go: Server


def run(rounds: int = ROUNDS) -> Report:
    """Start everything once, then measure round by round."""
    congestion = enter_own_network()
    configure_logs(level="error", style="console")
    with tempfile.TemporaryDirectory(prefix="kino-bench-") as name:
        rows = asyncio.run(_measure(Path(name), rounds))
    stated = conditions(
        rounds=rounds,
        congestion=congestion,
        title=f"{TITLE.segment_count} segments of {TITLE.video_bytes + TITLE.audio_bytes} bytes, warm",
        message_bytes="65536 first, 262144 until 2 MiB are sent or while the reader is slow, then 2097152",
        reader="Go, two streams on two connections, HTTP/2 stream windows of 4 MiB",
        gateway="envoy.yaml as shipped, one worker a core",
        processes="playback 1, nginx worker 1, Go as it schedules itself",
    )
    return Report(bench="playback", rows=rows, conditions=stated)


async def _measure(folder: Path, rounds: int) -> list[Row]:
    async with _running(folder) as all_of_it:
        for _ in range(rounds):
            for contestant in all_of_it.contestants.values():
                await _cost(all_of_it, contestant)
        for _ in range(rounds):
            for contestant in all_of_it.contestants.values():
                await _firsts(all_of_it, contestant)
        rows = _cost_rows(all_of_it.contestants) + _first_rows(all_of_it.contestants)
        rows += await _viewer_rows(all_of_it)
        return rows + await _stalled_rows(all_of_it)


async def _cost(running: Field, contestant: Contestant) -> None:
    before, read_bytes = sum(server.cpu_s for server in contestant.servers), 0
    while read_bytes < _SAMPLE_BYTES:
        plan = await _plan(contestant, streams=2)
        read_bytes += (await running.reader.read(**plan, streams=2))["bytes"]
    spent_s = sum(server.cpu_s for server in contestant.servers) - before
    contestant.cpu_s_per_gib.append(spent_s / (read_bytes / GIB))


async def _firsts(running: Field, contestant: Contestant) -> None:
    plan = await _plan(contestant, streams=1)
    plan["requests"] = plan["requests"][:1]
    result = await running.reader.read(**plan, streams=_FIRSTS, connections=1, first=True)
    contestant.firsts_ms += result["firsts_ms"]


async def _plan(contestant: Contestant, streams: int) -> dict[str, Any]:
    if contestant.requests is None:
        return dict(contestant.plan)
    return {**contestant.plan, "requests": await contestant.requests.make(streams)}


def _cost_rows(found: dict[str, Contestant]) -> list[Row]:
    pairs = [
        ("kino", "nginx h2c", "<=0.55"),
        ("kino", "nginx h2c tuned", "<=1.0"),
        ("kino", "nginx h1 sendfile", "<=1.8"),
        ("kino", "go", "<=0.85"),
        ("kino, envoy", "go, envoy", "<=0.9"),
        ("kino, tls", "nginx h2, tls", "<=0.6"),
    ]
    return [
        Row(
            name=f"CPU per GiB: {ours}",
            value=found[ours].cost,
            unit="s/GiB",
            peer=f"{theirs} {found[theirs].cost:.3f}",
            ratio=found[ours].cost / found[theirs].cost,
            goal=goal,
        )
        for ours, theirs, goal in pairs
    ]


def _first_rows(found: dict[str, Contestant]) -> list[Row]:
    rows = []
    for name, goal in (
        ("kino", None),
        ("kino, cold", None),
        ("kino, envoy", "<=1"),
        ("go", None),
        ("go, envoy", None),
        ("nginx h2c", None),
    ):
        ordered = sorted(found[name].firsts_ms)
        rows.append(Row(name=f"first byte p50: {name}", value=median(ordered), unit="ms", goal=goal))
        rows.append(Row(name=f"first byte p99: {name}", value=quantiles(ordered, n=100)[98], unit="ms"))
    return rows


async def _viewer_rows(running: Field) -> list[Row]:
    """Thousands of viewers at the speed of the film, on one process."""
    made: dict[str, tuple[float, float, dict[str, Any]]] = {}
    for name, server in (("kino", running.kino), ("go", running.go)):
        plan = await _plan(running.contestants[name], streams=VIEWERS)
        memory, before = server.memory_bytes, server.cpu_s
        reading = asyncio.create_task(
            running.reader.read(
                **plan,
                may_fail=True,
                streams=VIEWERS,
                connections=50,
                stream_window=256 << 10,
                rate=RATE_BYTES,
                seconds=WATCH_S,
            )
        )
        await asyncio.wait({reading}, timeout=WATCH_S * 0.8)
        grown = server.memory_bytes - memory
        result = await reading
        made[name] = (server.cpu_s - before, grown / VIEWERS / 1024, result)
    (cpu, memory_kib, result), (go_cpu, _, go_result) = made["kino"], made["go"]
    per_gib, go_per_gib = cpu / (result["bytes"] / GIB), go_cpu / (go_result["bytes"] / GIB)
    peer = f"go {go_per_gib:.3f}, {go_result['stalled']} stalled, {go_result['failed']} failed"
    return [
        Row(name=f"{VIEWERS} viewers: stalled", value=float(result["stalled"]), unit="viewers", goal="<=0"),
        Row(name=f"{VIEWERS} viewers: failed", value=float(result["failed"]), unit="viewers", goal="<=0"),
        Row(name=f"{VIEWERS} viewers: memory of each", value=memory_kib, unit="KiB", goal="<=300"),
        Row(
            name=f"{VIEWERS} viewers: CPU",
            value=per_gib,
            unit="s/GiB",
            peer=peer,
            ratio=per_gib / go_per_gib,
            goal="<=1.2",
        ),
    ]


async def _stalled_rows(running: Field) -> list[Row]:
    """Readers that take a little and then nothing, and what that does to the others."""
    contestant = running.contestants["kino"]
    plan = await _plan(contestant, streams=STALLED)
    memory = running.kino.memory_bytes
    other = await Reader.run(built_peers(_cache()))
    try:
        stalled = asyncio.create_task(
            other.read(**plan, streams=STALLED, connections=20, stream_window=256 << 10, stall=2, seconds=8)
        )
        await asyncio.wait({stalled}, timeout=3)
        grown = running.kino.memory_bytes - memory
        beside = replace(contestant, name="beside", cpu_s_per_gib=[], firsts_ms=[])
        await _firsts(running, beside)
        await stalled
    finally:
        other.stop()
    ratio = median(beside.firsts_ms) / median(contestant.firsts_ms)
    return [
        Row(name=f"{STALLED} stalled readers: memory of each", value=grown / STALLED / 1024, unit="KiB"),
        Row(
            name=f"{STALLED} stalled readers: first byte p50 of others",
            value=median(beside.firsts_ms),
            unit="ms",
            peer="without them",
            ratio=ratio,
        ),
    ]


def _cache() -> Path:
    base = os.environ.get("KINO_CACHE") or Path.home() / ".cache" / "kino"
    return Path(base) / "bench"


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[Field]:
    program = built_peers(_cache())
    tls = Certificate.made(folder)
    async with AsyncExitStack() as stack:
        core = await stack.enter_async_context(_core(folder))
        film = await encode_film(folder, SPEC, CUTS, {VideoCodec.H264: RUNGS[VideoCodec.H264][:1]})
        title = await TITLE.publish(core, film)
        kino = await _kino(folder, core, tls, "warm", _CACHE_BYTES)
        stack.callback(kino.server.stop)
        messages = folder / "messages"
        requests = Requests(core, title, kino.server.address)
        await _dump(kino.server.address, (await requests.make(1))[0], messages)
        cold = await _kino(folder, core, tls, "cold", MIB)
        stack.callback(cold.server.stop)
        go = await _go(program, messages, folder)
        stack.callback(go.stop)
        nginx = await Nginx.run(folder, _files(folder, title), tls)
        stack.callback(nginx.server.stop)
        envoys = {}
        for name, server in (("kino", kino.server), ("go", go)):
            gateway = await _gateway(folder / f"envoy-{name}", core, server)
            stack.push_async_callback(gateway.child.stop)
            envoys[name] = gateway
        reader = await Reader.run(program)
        stack.callback(reader.stop)
        yield Field(
            reader=reader,
            kino=kino.server,
            go=go,
            contestants=_contestants(kino, cold, go, nginx, envoys, requests),
        )


@dataclass(frozen=True)
class _Kino:
    server: Server
    tls_address: str


def _contestants(
    kino: _Kino, cold: _Kino, go: Server, nginx: Nginx, envoys: dict[str, Any], requests: Requests
) -> dict[str, Contestant]:
    paths = [f"/{number}.m4s" for number in range(TITLE.segment_count)]

    def play(name: str, address: str, *servers: Server, tls: bool = False) -> Contestant:
        plan = {"protocol": "grpc", "address": address, "tls": tls}
        return Contestant(name=name, servers=servers, plan=plan, requests=requests)

    def http(name: str, protocol: str, address: str, tls: bool = False) -> Contestant:
        plan = {"protocol": protocol, "address": address, "tls": tls, "requests": paths}
        return Contestant(name=name, servers=[nginx.server], plan=plan)

    gates = {name: _envoy_server(gateway) for name, gateway in envoys.items()}
    every = [
        play("kino", kino.server.address, kino.server),
        http("nginx h2c", "h2", nginx.default),
        http("nginx h2c tuned", "h2", nginx.tuned),
        http("nginx h1 sendfile", "h1", nginx.h1),
        play("go", go.address, go),
        play("kino, envoy", gates["kino"].address, kino.server, gates["kino"]),
        play("go, envoy", gates["go"].address, go, gates["go"]),
        play("kino, tls", kino.tls_address, kino.server, tls=True),
        http("nginx h2, tls", "h2", nginx.tls, tls=True),
        play("kino, cold", cold.server.address, cold.server),
    ]
    found = {contestant.name: contestant for contestant in every}
    found["kino, cold"].requests = requests.at(cold.server.address)
    return found


def _envoy_server(gateway: Gateway) -> Server:
    class _Pid:
        pid = gateway.child.pid

    return Server(_Pid, gateway.url.removeprefix("http://"))  # type: ignore[arg-type]


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


async def _kino(folder: Path, core: Running, tls: Certificate, name: str, cache_bytes: int) -> _Kino:
    port, tls_port = free_port(), free_port()
    endpoints = dict.fromkeys(("catalog", "history", "billing", "identity"), core.address)
    env = {
        "KINO_DATA_DIR": str(folder / f"node-{name}"),
        "KINO_KEYS_DIR": str(core.context.settings.keys_folder),
        "KINO_OBJECTS_DIR": str(core.context.settings.objects_folder),
        "KINO_ENDPOINTS": str(endpoints).replace("'", '"'),
        "KINO_GRPC_PORT": str(port),
        "KINO_TLS_PORT": str(tls_port),
        "KINO_TLS_CERTIFICATE": str(tls.certificate),
        "KINO_TLS_KEY": str(tls.key),
        "KINO_PLAYBACK_CACHE_BYTES": str(cache_bytes),
        "KINO_LEASE_TTL_S": "3600",
        "KINO_LOG_LEVEL": "error",
    }
    argv = [str(Path(sys.executable).with_name("kino")), "serve", "playback"]
    server = await started(argv, f"127.0.0.1:{port}", folder / f"kino-{name}.log", env)
    return _Kino(server, f"127.0.0.1:{tls_port}")


async def _go(program: Path, messages: Path, folder: Path) -> Server:
    address = f"127.0.0.1:{free_port()}"
    return await started([str(program), "serve", address, str(messages)], address, folder / "go.log")


async def _gateway(folder: Path, core: Running, server: Server) -> Gateway:
    jwks = open_keys(core.context.settings.keys_folder).jwks_path
    gateway = Gateway(folder, bind="127.0.0.1", port=free_port(), jwks=jwks, log_path=folder / "envoy.log")
    gateway.set_endpoints({"playback": [server.address]})
    await gateway.child.start()
    return gateway


def _files(folder: Path, title: str) -> Path:
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
