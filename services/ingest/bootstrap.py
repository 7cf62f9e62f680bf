"""Ingest's graph."""

from __future__ import annotations

import grpc.aio

from kino.ingest.v1.ingest_pb2_grpc import add_IngestServiceServicer_to_server
from services.ingest.parts import PartFiles
from services.ingest.peers import GrpcPeers
from services.ingest.rpc import IngestServicer
from services.ingest.store_sql import SqlStore
from services.ingest.usecases import Limits, Uploads
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager


async def build(context: Context) -> ServiceApp:
    """Ingest, ready to be served."""
    settings = context.settings
    database = context.database("ingest")
    parts = PartFiles(settings.data_dir / "uploads")
    limits = Limits(max_bytes=settings.upload_max_bytes, quota_bytes=settings.upload_quota_bytes)
    uploads = Uploads(
        SqlStore(database), parts, context.objects, GrpcPeers(context.channels), context.clock, limits
    )
    servicer = IngestServicer(uploads, Pager(context.sealer, context.clock), settings.upload_part_bytes)

    def register(server: grpc.aio.Server) -> None:
        add_IngestServiceServicer_to_server(servicer, server)

    async def close() -> None:
        await uploads.close()
        parts.close()

    return ServiceApp(
        name="ingest",
        grpc_services=["kino.ingest.v1.IngestService"],
        register=register,
        dependencies=[
            database.dependency("services.ingest", "kino.ingest.v1.IngestService", then=uploads.recover),
            # Parts are received without it.
            context.origin("kino.ingest.v1.IngestService.CompleteUpload"),
        ],
        background=[uploads.run],
        close=close,
    )
