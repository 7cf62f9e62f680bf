"""Builds an encoder worker."""

from __future__ import annotations

import os
import platform
import re

from kino.encoder.v1.encoder_pb2_grpc import add_EncoderServiceServicer_to_server
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.rpc import EncoderServicer
from services.encoder.usecases import Encoder
from services.encoder.worker import EncodeTasks, capabilities
from services.media.scratch import Scratch
from services.media.work import Worker
from services.runtime.app import Context, ServiceApp


async def build(ctx: Context) -> ServiceApp:
    """A worker that pulls encode tasks; refuses to start where uploads cannot be opened safely."""
    can = await capabilities()
    worker_id = ctx.settings.worker_id or _own_id()
    scratch = Scratch(ctx.settings.scratch_dir, ctx.settings.scratch_bytes, worker_id)
    scratch.collect_orphans()
    engine = FfmpegEngine(measure=ctx.settings.encode_quality, scratch=scratch)
    tasks = EncodeTasks(Encoder(ctx.objects, engine), can.ffmpeg_version)
    worker = Worker(
        worker_id,
        can,
        ctx.settings.worker_slots,
        tasks.handlers(),
        ctx.channels.stub(SchedulerServiceStub).Work,
    )
    servicer = EncoderServicer(worker, tasks)
    return ServiceApp(
        name="encoder",
        grpc_services=["kino.encoder.v1.EncoderService"],
        register=lambda server: add_EncoderServiceServicer_to_server(servicer, server),
        dependencies=[ctx.origin("kino.encoder.v1.EncoderService")],
        background=[worker.run],
    )


def _own_id() -> str:
    """Host and process: unique among live workers where the operator names none."""
    host = re.sub(r"[^a-z0-9-]", "-", platform.node().lower())[:40]
    return f"encoder-{host}-{os.getpid()}"
