"""Builds the preprocessor: its quick answers, and the worker that pulls its heavy tasks."""

from __future__ import annotations

import os
import platform
import re

from kino.preprocessor.v1.preprocessor_pb2_grpc import add_PreprocessorServiceServicer_to_server
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.media.scratch import Scratch
from services.media.work import Worker
from services.preprocessor.rpc import PreprocessorServicer
from services.preprocessor.worker import LookTasks, capabilities
from services.runtime.app import Context, ServiceApp


async def build(ctx: Context) -> ServiceApp:
    """The preprocessor; refuses to start where uploads cannot be opened safely."""
    # Beside an encoder in the same process it is a worker of its own.
    worker_id = f"preprocessor-{ctx.settings.worker_id or _own_id()}"
    scratch = Scratch(ctx.settings.scratch_dir, ctx.settings.scratch_bytes, worker_id)
    scratch.collect_orphans()
    worker = Worker(
        worker_id,
        await capabilities(),
        ctx.settings.worker_slots,
        LookTasks(ctx.objects, scratch).handlers(),
        ctx.channels.stub(SchedulerServiceStub).Work,
    )
    servicer = PreprocessorServicer(ctx.objects, ctx.settings.video_codecs, scratch)
    return ServiceApp(
        name="preprocessor",
        grpc_services=["kino.preprocessor.v1.PreprocessorService"],
        register=lambda server: add_PreprocessorServiceServicer_to_server(servicer, server),
        dependencies=[ctx.origin("kino.preprocessor.v1.PreprocessorService")],
        background=[worker.run],
    )


def _own_id() -> str:
    """Host and process: unique among live workers where the operator names none."""
    host = re.sub(r"[^a-z0-9-]", "-", platform.node().lower())[:40]
    return f"{host}-{os.getpid()}"
