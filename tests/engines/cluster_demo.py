"""`make demo PROFILE=cluster`: the demo on real engines, losing one node after the other in the midst.

Nothing that is lost comes back: what is left has to go on alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from cli.client import CredentialFile, Kino, connect
from cli.commands.demo import summarise
from cli.demo import Demo, Step
from cli.doctor_engines import examine_engines
from cli.gateway import admin_report
from cli.output import Output
from cli.playing import end_playback, start_playback, stream
from cli.stream_check import CheckFailed, check
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2
from kino.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from kino.scheduler.v1.resources_pb2 import Job
from services.runtime.errors import KinoError
from services.runtime.status import error_of
from tests.engines.cluster import Cluster, running_cluster
from tests.engines.real import RealEngines, real_engines
from tests.engines.witness import Witness

#: Tasks that are done before the first loss, and after it before the next one: each is in the midst.
_BETWEEN = 2
_GOES_ON_WITHIN_S = 60.0
_POLL_S = 0.1
_VIEWERS = 8
_REPORTS_AFTER = 30
#: So small that a stream is under way until its reader wants all of it.
_WINDOW = (("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0))


@dataclass(kw_only=True)
class ClusterDemo(Demo):
    """The demo, with losses."""

    cluster: Cluster
    engines: RealEngines
    lost: set[str] = field(default_factory=set)
    _witness: Witness | None = None

    async def run(self) -> None:
        """As the demo; at the end everything acknowledged is looked for once more."""
        with self.step("doctor") as step:
            findings = await examine_engines(self.cluster.settings())
            check(
                "What the doctor finds wrong", [], [one.sentence for one in findings if one.state == "wrong"]
            )
            step.result = f"nothing wrong in {len(findings)} checks of the engines"
        await super().run()
        assert self._witness
        async with connect(self.url, CredentialFile(self.folder / "operator.json")) as operator:
            self._witness.operator = operator
            with self.step("all acknowledged") as step:
                step.result = await self._witness.check()

    async def ingest(self, operator: Kino) -> str:
        """Ingest, while an encoder, a scheduler and the PostgreSQL primary are lost one after the other."""
        self._witness = Witness(operator=operator)
        async with self._witness.writing():
            losses = asyncio.create_task(self._lose_while_encoding(operator))
            try:
                title = await super().ingest(operator)
                await losses
            finally:
                losses.cancel()
        with self.step("acknowledged so far") as step:
            step.result = await self._witness.check()
        return title

    async def play(self, viewer: Kino, title: str, name: str, codec: media_pb2.VideoCodec.ValueType) -> None:
        """Play; before the first time, lose a playback node while eight others watch."""
        if "playback" not in self.lost:
            await self._lose_while_playing(viewer, title)
        await super().play(viewer, title, name, codec)

    async def resume(self, viewer: Kino, title: str) -> None:
        """Stop and resume; before, lose a Cassandra node while positions are reported."""
        if self.engines.lose_cassandra_node:
            with self.step("lose a Cassandra node") as step:
                lost = asyncio.create_task(asyncio.to_thread(self.engines.lose_cassandra_node))
                reports = await self._report(viewer, title, lost)
                step.result = f"{await lost}; {reports} reports acknowledged, the last one holds"
        await super().resume(viewer, title)

    async def _report(self, viewer: Kino, title: str, until: asyncio.Task[str]) -> int:
        """Report a position each 100 ms until a while after that task; how many, all of which are there."""
        assert self._witness
        stub = viewer.stub(history_pb2_grpc.HistoryServiceStub)
        started = await start_playback(viewer, title, "reporting")
        reports = after = 0
        while after < _REPORTS_AFTER:
            after += until.done()
            reports += 1
            request = history_pb2.RecordProgressRequest(lease_token=started.lease.token, sequence=reports)
            request.position.FromMilliseconds(100 * reports)
            interval = request.intervals.add()
            interval.start_offset.FromMilliseconds(100 * (reports - 1))
            interval.end_offset.CopyFrom(request.position)
            await self._witness.insist(stub.RecordProgress, request)
            await asyncio.sleep(0.1)
        parent = await viewer.profile()
        page = await self._witness.insist(stub.ListViews, history_pb2.ListViewsRequest(parent=parent))
        seen = [(view.position.ToMilliseconds(), len(view.intervals)) for view in page.views]
        check("Position and stretches watched", [(100 * reports, 1)], seen)
        await end_playback(viewer, started.lease.token)
        return reports

    async def _lose_while_encoding(self, operator: Kino) -> None:
        losses: list[tuple[str, Callable[[], str]]] = [
            ("an encoder", lambda: self._kill("encoder-0")),
            ("a scheduler", lambda: self._kill("scheduler-0")),
        ]
        if self.engines.lose_postgres_primary:
            losses.append(("the PostgreSQL primary", self.engines.lose_postgres_primary))
        await self._done(operator, _BETWEEN + 1)
        for what, lose in losses:
            with self.step(f"lose {what}") as step:
                before = await self._job(operator)
                killed = await asyncio.to_thread(lose)
                started = time.monotonic()
                await self._done(operator, before.done_task_count + _BETWEEN)
                step.result = f"{killed}; the film goes on after {time.monotonic() - started:.1f} s"

    async def _done(self, operator: Kino, at_least: int) -> None:
        """Return once so many tasks are done, and others are not."""
        async with asyncio.timeout(None) as limit:
            loop = asyncio.get_running_loop()
            most = -1
            while True:
                job = await self._job(operator)
                if job.done_task_count > most:
                    most = job.done_task_count
                    limit.reschedule(loop.time() + _GOES_ON_WITHIN_S)
                if job.state not in (Job.STATE_PENDING, Job.STATE_RUNNING):
                    raise CheckFailed("The job when a node is lost", "running", Job.State.Name(job.state))
                if job.done_task_count >= at_least:
                    return
                await asyncio.sleep(_POLL_S)

    async def _job(self, operator: Kino) -> Job:
        """The newest job, from whichever scheduler answers."""
        stub = operator.stub(scheduler_pb2_grpc.SchedulerServiceStub)
        while True:
            try:
                jobs = (await stub.ListJobs(scheduler_pb2.ListJobsRequest(page_size=1), timeout=5)).jobs
                if jobs:
                    return jobs[0]
            except grpc.aio.AioRpcError as error:
                if error_of(error).code.name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"):
                    raise
            await asyncio.sleep(_POLL_S)

    async def _lose_while_playing(self, viewer: Kino, title: str) -> None:
        with self.step("lose a playback node") as step:
            started = await start_playback(viewer, title, "many screens")
            request = playback_pb2.PlayRequest(lease_token=started.lease.token)
            request.offset.FromSeconds(0)
            begun, go_on = asyncio.Barrier(_VIEWERS + 1), asyncio.Event()
            watching = [asyncio.create_task(self._watch(request, begun, go_on)) for _ in range(_VIEWERS)]
            await begun.wait()
            busy = self._busiest_playback_node()
            self._kill(busy[0])
            go_on.set()
            streams = await asyncio.gather(*watching)
            undisturbed = await self._watch(request, None, None)
            check("Streams as if nothing had happened", {undisturbed}, set(streams))
            await end_playback(viewer, started.lease.token)
            step.result = (
                f"{busy[0]} with {busy[1]} of {_VIEWERS} streams; all came whole, {len(undisturbed)} bytes"
            )

    async def _watch(
        self, request: playback_pb2.PlayRequest, begun: asyncio.Barrier | None, go_on: asyncio.Event | None
    ) -> bytes:
        data = bytearray()
        async with grpc.aio.insecure_channel(self.url.removeprefix("http://"), options=_WINDOW) as channel:
            kino = Kino(self.url, channel, CredentialFile(self.folder / "viewer.json"))
            async for message in stream(kino, request):
                first = not data and message.HasField("media")
                data += message.media.data
                if first and begun and go_on:
                    await begun.wait()
                    await go_on.wait()
        return bytes(data)

    def _busiest_playback_node(self) -> tuple[str, int]:
        """The node with the most streams, and how many. Raises `CheckFailed` when none has any."""
        report = admin_report(self.cluster.folder / "gateway" / "run" / "gateway")
        hosts = next(cluster["host_statuses"] for cluster in report if cluster["name"] == "playback")
        active = {_address(host): _active_streams(host) for host in hosts}
        address = max(active, key=lambda one: active[one])
        if not active[address]:
            raise CheckFailed("Streams under way when a playback node is lost", "some", "none")
        name = next(node.name for node in self.cluster.nodes.values() if node.address == address)
        return name, active[address]

    def _kill(self, name: str) -> str:
        self.cluster.nodes[name].process.kill()
        self.lost.add(name.partition("-")[0])
        return f"{name} killed"


def _address(host: dict[str, Any]) -> str:
    where = host["address"]["socket_address"]
    return f"{where['address']}:{where['port_value']}"


def _active_streams(host: dict[str, Any]) -> int:
    return next(int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == "rq_active")


def main() -> int:
    """Run it; 0 when everything held."""
    output = Output(as_json="--json" in sys.argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kino-cluster-") as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        output.say("Starting PostgreSQL, Cassandra, S3 and Elasticsearch, then every service …")
        with real_engines() as engines:
            ready = Step(name="engines", result=engines.summary, seconds=time.monotonic() - started)
            with running_cluster(folder / "kino", engines.settings) as cluster:
                return _run(folder, engines, cluster, ready, output, started)


def _run(
    folder: Path, engines: RealEngines, cluster: Cluster, ready: Step, output: Output, started: float
) -> int:
    up = Step(name="services", result=f"{len(cluster.nodes)} processes behind {cluster.url}")
    up.seconds = time.monotonic() - started - ready.seconds
    demo = ClusterDemo(
        url=cluster.url,
        claim_token=cluster.claim_token,
        folder=folder,
        output=output,
        steps=[ready, up],
        cluster=cluster,
        engines=engines,
    )
    try:
        asyncio.run(demo.run())
    except (KinoError, grpc.aio.AioRpcError, TimeoutError) as error:
        known = error_of(error) if isinstance(error, grpc.aio.AioRpcError) else error
        problem = known.message if isinstance(known, KinoError) else f"no progress for {_GOES_ON_WITHIN_S} s"
        failed = {"ok": False, "step": demo.steps[-1].name, "problem": problem}
        sys.stdout.write(json.dumps(failed) + "\n")
        cluster.print_logs(sys.stderr)
        return 1
    summarise(output, demo.steps, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
