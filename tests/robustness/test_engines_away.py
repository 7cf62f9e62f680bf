"""A service whose engine is down starts, says what it can't serve, and recovers by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.preprocessor.v1 import preprocessor_pb2, resources_pb2
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from services.runtime.app import Running, builders, running
from services.runtime.testing import channel_of, settings_in
from tests.engines.postgres import PostgresServer
from tests.engines.s3 import seaweedfs
from tests.support.stack import refusal

pytestmark = pytest.mark.engine

SERVED = {
    "catalog": "kino.catalog.v1.CatalogService",
    "billing": "kino.billing.v1.BillingService",
    "playback": "kino.playback.v1.PlaybackService.StartPlayback",
}
_WITHIN_S = 60.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    for name in SERVED:
        server.new_database(f"kino_{name}")
    server.stop()
    yield server
    server.remove()


async def becomes(process: Running, name: str, *, serving: bool) -> None:
    wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    async with asyncio.timeout(_WITHIN_S), channel_of(process) as channel:
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=name)
        ):
            if answer.status == wanted:
                return


async def all_become(process: Running, *, serving: bool) -> None:
    await asyncio.gather(*(becomes(process, name, serving=serving) for name in SERVED.values()))


async def test_services_start_without_postgresql_and_follow_it(
    server: PostgresServer, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path, sql_url=server.url("kino_{service}"))
    async with running(settings, builders(SERVED)) as process:
        await all_become(process, serving=False)
        # What plays needs no database, so that playback itself is served.
        await becomes(process, "kino.playback.v1.PlaybackService", serving=True)
        catalog = process.context.named("ingest").channels.stub(catalog_pb2_grpc.CatalogServiceStub)
        unknown = catalog_pb2.GetTitleRequest(name="titles/unknown")
        assert await refusal(catalog.GetTitle(unknown)) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")

        await asyncio.to_thread(server.start)
        await all_become(process, serving=True)
        assert (await refusal(catalog.GetTitle(unknown)))[0] == "NOT_FOUND"

        await asyncio.to_thread(server.kill)
        await all_become(process, serving=False)
        assert await refusal(catalog.GetTitle(unknown)) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")

        await asyncio.to_thread(server.start)
        await all_become(process, serving=True)
        assert (await refusal(catalog.GetTitle(unknown)))[0] == "NOT_FOUND"


async def test_services_start_without_s3_and_follow_it(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    server = seaweedfs(tmp_path / "s3")
    settings = settings_in(
        tmp_path / "kino",
        objects_store="s3",
        s3_url=server.url,
        s3_access_key=server.access_key,
        s3_secret_key=server.secret_key,
    )
    needing = ["kino.ingest.v1.IngestService.CompleteUpload", "kino.preprocessor.v1.PreprocessorService"]
    going_on = ["kino.ingest.v1.IngestService", "kino.playback.v1.PlaybackService"]
    services = builders(["catalog", "ingest", "playback", "preprocessor"])
    async with running(settings, services) as process:
        inspect = process.context.named("ingest").channels.stub(PreprocessorServiceStub).InspectSource
        source = resources_pb2.Source(object_key="sources/one", size_bytes=1, sha256=bytes(32))
        request = preprocessor_pb2.InspectSourceRequest(source=source)

        async def follows(*, serving: bool, answers: tuple[str, str]) -> None:
            await asyncio.gather(*(becomes(process, name, serving=serving) for name in needing))
            await asyncio.gather(*(becomes(process, name, serving=True) for name in going_on))
            assert await refusal(inspect(request)) == answers

        try:
            await follows(serving=False, answers=("UNAVAILABLE", "OBJECT_STORE_UNAVAILABLE"))
            await asyncio.to_thread(server.start)
            await follows(serving=True, answers=("NOT_FOUND", "OBJECT_NOT_FOUND"))
            await asyncio.to_thread(server.kill)
            await follows(serving=False, answers=("UNAVAILABLE", "OBJECT_STORE_UNAVAILABLE"))
            await asyncio.to_thread(server.start)
            await follows(serving=True, answers=("NOT_FOUND", "OBJECT_NOT_FOUND"))
        finally:
            server.stop()
