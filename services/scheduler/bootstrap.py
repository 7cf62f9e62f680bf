"""The scheduler's graph."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

import grpc.aio

from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from kino.scheduler.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager
from services.scheduler.dispatch import Dispatcher
from services.scheduler.pipeline import Pipeline, Services
from services.scheduler.publish import SegmentPublisher
from services.scheduler.rpc import SchedulerServicer
from services.scheduler.signals import Signals
from services.scheduler.store_sql import SqlStore
from services.scheduler.usecases import Jobs

if TYPE_CHECKING:
    from services.scheduler.workflow import WorkflowEngine


class LazyEngine:
    """The workflow engine, launched beside the service: nothing waits for it, jobs are rows already."""

    def __init__(self, context: Context, store: SqlStore, pipeline: Pipeline) -> None:
        self._settings = context.settings
        self._store = store
        self._pipeline = pipeline
        self._engine: WorkflowEngine | None = None

    async def run(self) -> None:
        """Launch, and go on with every job that is not closed."""
        workflow = await asyncio.to_thread(import_module, "services.scheduler.workflow")
        engine: WorkflowEngine = workflow.WorkflowEngine(
            self._settings.database_url("workflows"),
            self._settings.data_dir / "sql" / "workflows.lock",
            self._pipeline,
        )
        self._engine = engine
        await engine.launch()
        for job_id in await self._store.unfinished_jobs():
            await engine.start(job_id)

    async def start(self, job_id: str) -> None:
        """Start the workflow of a stored job; before the launch that is left to the launch."""
        if self._engine is not None and self._engine.launched:
            await self._engine.start(job_id)

    async def close(self) -> None:
        """Stop; workflows go on after the next start."""
        if self._engine is not None:
            await self._engine.close()


async def build(context: Context) -> ServiceApp:
    """The scheduler, ready to be served."""
    database = context.database("scheduler")
    store, signals, clock = SqlStore(database), Signals(), context.clock
    catalog = context.channels.stub(CatalogServiceStub)
    publisher = SegmentPublisher(store, signals, catalog, context.objects, clock)
    dispatcher = Dispatcher(store, signals, publisher, clock)
    services = Services(catalog=catalog, preprocessor=context.channels.stub(PreprocessorServiceStub))
    pipeline = Pipeline(store, signals, dispatcher, publisher, services, clock)
    engine = LazyEngine(context, store, pipeline)
    jobs = Jobs(store, signals, dispatcher, clock, engine.start)
    publisher.on_ended = jobs.ended
    servicer = SchedulerServicer(jobs, store, dispatcher, Pager(context.sealer, clock), clock)

    def register(server: grpc.aio.Server) -> None:
        add_SchedulerServiceServicer_to_server(servicer, server)

    async def close() -> None:
        await engine.close()
        await publisher.close()

    return ServiceApp(
        name="scheduler",
        grpc_services=["kino.scheduler.v1.SchedulerService"],
        register=register,
        dependencies=[
            database.dependency(
                "services.scheduler", "kino.scheduler.v1.SchedulerService", then=dispatcher.recover
            )
        ],
        background=[dispatcher.run, engine.run],
        close=close,
    )
