"""How soon after the start there is a page, then a first frame, and what the idle suite holds in memory."""

from __future__ import annotations

import asyncio
import io
import socket
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import av.error
import psutil

from bench.report import Report, Row, conditions
from cli.client import CredentialFile, Kino, connect
from cli.commands.jobs import ensure_succeeded, watch_job
from cli.output import Mute
from cli.playing import end_playback, start_playback
from cli.suite_process import launch_suite, process_tree, running_suite
from cli.uploading import upload
from kino.billing.v1 import billing_pb2, billing_pb2_grpc
from kino.billing.v1 import resources_pb2 as billing
from kino.catalog.v1 import resources_pb2 as catalog
from kino.common.v1 import money_pb2
from kino.identity.v1 import identity_pb2, identity_pb2_grpc
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2, playback_pb2_grpc, resources_pb2
from kino.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from services.media.testfilm import FilmSpec, make_film
from services.runtime.claims import temporary

ROUNDS = 5
_FILM = FilmSpec(seconds=Fraction(12), cuts=(5.4,), loud=None)
_GIVE_UP_S = 60.0
_WORKERS = 2
_IDLE_AFTER_S = 3.0
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Round:
    """One start."""

    page_s: float
    frame_after_page_s: float
    idle_bytes: int


def run(rounds: int = ROUNDS) -> Report:
    """Store a film once, then start `rounds` times. The client is a process of its own that runs already."""
    stated = conditions(
        rounds=rounds,
        film="12 s, 1280x720 at 30000/1001, best H.264 rendition",
        memory="proportional set size of all processes but Envoy, 3 s after both workers connected",
        client="signed in before the start; connects when the page is served",
    )
    with temporary("bench") as name:
        measured = asyncio.run(_measure(Path(name), rounds))
    rows = (
        _row("served page after start", [one.page_s for one in measured], "s", "<=5"),
        _row("first frame after page", [one.frame_after_page_s for one in measured], "s", "<=1"),
        _row("idle memory but Envoy", [one.idle_bytes / MIB for one in measured], "MiB", "<=400"),
    )
    return Report(bench="startup", rows=rows, conditions=stated)


def _row(name: str, values: list[float], unit: str, goal: str) -> Row:
    return Row(name=name, value=median(values), unit=unit, goal=goal)


async def _measure(folder: Path, rounds: int) -> list[Round]:
    # The same port for every start: the client's session belongs to an address.
    port = _free_port()
    with running_suite(folder / "data", port=port) as suite:
        title = await _stored(folder, suite.url, suite.claim_token or "")
    return [await _start(folder, port, title) for _ in range(rounds)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _stored(folder: Path, url: str, claim_token: str) -> str:
    async with connect(url, CredentialFile(folder / "credentials.json")) as kino:
        claim = identity_pb2.ClaimOperatorRequest(
            claim_token=claim_token,
            email="bench@example.org",
            password="only for benches",
            display_name="Bench",
        )
        kino.keep((await kino.stub(identity_pb2_grpc.IdentityServiceStub).ClaimOperator(claim)).session)
        await _subscribed(kino)
        await make_film(folder / "film.mp4", _FILM)
        title = catalog.Title(display_name="Start-up")
        done = await upload(kino, folder / "film.mp4", title=title, progress=lambda sent, size: None)
        ensure_succeeded(await watch_job(kino, done.job, Mute()))
        return done.title


async def _subscribed(kino: Kino) -> None:
    """A free plan: entitles at once."""
    stub = kino.stub(billing_pb2_grpc.BillingServiceStub)
    plan = billing.Plan(
        display_name="Free",
        price=money_pb2.Money(currency_code="EUR", amount_minor=0),
        interval=billing.Plan.INTERVAL_MONTH,
        concurrent_stream_limit=10,
    )
    made = await stub.CreatePlan(billing_pb2.CreatePlanRequest(plan=plan, request_id=str(uuid.uuid4())))
    request = billing_pb2.CreateSubscriptionRequest(
        parent=kino.user, plan=made.plan.name, request_id=str(uuid.uuid4())
    )
    await stub.CreateSubscription(request)


async def _start(folder: Path, port: int, title: str) -> Round:
    url = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    process = launch_suite(folder / "data", port=port, workers=_WORKERS)
    try:
        await asyncio.to_thread(_wait_for_page, url, started)
        page = time.monotonic()
        await _first_frame(folder, url, title)
        frame = time.monotonic()
        await _workers_connected(folder, url)
        await asyncio.sleep(_IDLE_AFTER_S)
        idle_bytes = _memory_bytes(process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    return Round(page_s=page - started, frame_after_page_s=frame - page, idle_bytes=idle_bytes)


def _wait_for_page(url: str, started: float) -> None:
    while time.monotonic() - started < _GIVE_UP_S:
        try:
            with urllib.request.urlopen(f"{url}/", timeout=2) as answer:
                if answer.status == 200 and b"<html" in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise TimeoutError(f"{url} served no page within {_GIVE_UP_S:.0f} s")


async def _first_frame(folder: Path, url: str, title: str) -> None:
    async with connect(url, CredentialFile(folder / "credentials.json")) as kino:
        started = await start_playback(kino, title, "bench")
        stub = kino.stub(playback_pb2_grpc.PlaybackServiceStub)
        request = playback_pb2.PlayRequest(
            lease_token=started.lease.token, video_codec=media_pb2.VIDEO_CODEC_H264
        )
        data = bytearray()
        async for message in stub.Play(request):
            if message.HasField("header"):
                data += message.header.video_init
            elif message.media.track == resources_pb2.TRACK_VIDEO:
                data += message.media.data
                if _shows(bytes(data)):
                    break
        await end_playback(kino, started.lease.token)


async def _workers_connected(folder: Path, url: str) -> None:
    """Wait for the last processes of the suite: they are part of what idles."""
    async with connect(url, CredentialFile(folder / "credentials.json")) as kino:
        stub = kino.stub(scheduler_pb2_grpc.SchedulerServiceStub)
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            answer = await stub.ListWorkers(scheduler_pb2.ListWorkersRequest())
            encoders = [worker for worker in answer.workers if worker.name.startswith("workers/encoder-")]
            if sum(worker.connected for worker in encoders) == _WORKERS:
                return
            await asyncio.sleep(0.1)
    raise TimeoutError("the encoder workers did not connect")


def _shows(data: bytes) -> bool:
    """Whether a picture can be decoded from what came so far."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            return next(container.decode(video=0), None) is not None
    except av.error.FFmpegError:
        return False


def _memory_bytes(pid: int) -> int:
    total = 0
    for process in process_tree(pid):
        try:
            if process.name() != "envoy":
                total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total
