"""The scheduler's graph."""

from __future__ import annotations

import asyncio
from importlib import import_module

import grpc.aio

from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from kino.scheduler.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager
from services.scheduler.dispatch import Dispatcher
from services.scheduler.execution import Engine, Executor
from services.scheduler.locks import locks_of
from services.scheduler.pipeline import Pipeline, Services
from services.scheduler.publish import SegmentPublisher
from services.scheduler.rpc import SchedulerServicer
from services.scheduler.signals import Signals
from services.scheduler.signals_postgres import PostgresSignals
from services.scheduler.store_sql import SqlStore
from services.scheduler.usecases import Jobs


async def build(context: Context) -> ServiceApp:
    """The scheduler, ready to be served."""
    database = context.database("scheduler")
    store, signals, clock = SqlStore(database), _signals(context), context.clock
    catalog = context.channels.stub(CatalogServiceStub)
    publisher = SegmentPublisher(store, signals, catalog, context.objects, clock)
    dispatcher = Dispatcher(store, signals, publisher, clock, context.settings.tasks_per_user)
    services = Services(catalog=catalog, preprocessor=context.channels.stub(PreprocessorServiceStub))
    pipeline = Pipeline(store, signals, dispatcher, publisher, services, clock)
    executor = _executor(context, store, pipeline, publisher)
    jobs = Jobs(store, signals, dispatcher, clock, executor.wake)
    publisher.on_ended = jobs.ended
    signals.on_heard = dispatcher.wake
    servicer = SchedulerServicer(jobs, store, dispatcher, Pager(context.sealer, clock), clock)

    def register(server: grpc.aio.Server) -> None:
        add_SchedulerServiceServicer_to_server(servicer, server)

    return ServiceApp(
        name="scheduler",
        grpc_services=["kino.scheduler.v1.SchedulerService"],
        register=register,
        dependencies=[
            database.dependency(
                "services.scheduler", "kino.scheduler.v1.SchedulerService", then=dispatcher.recover
            )
        ],
        background=[dispatcher.run, executor.run, signals.run],
        close=publisher.close,
    )


def _signals(context: Context) -> Signals:
    database = context.database("scheduler")
    if database.dialect == "sqlite":
        return Signals()
    return PostgresSignals(context.settings.database_url("scheduler"), database)


def _executor(context: Context, store: SqlStore, pipeline: Pipeline, publisher: SegmentPublisher) -> Executor:
    settings = context.settings
    url = settings.database_url("workflows")

    async def make_engine() -> Engine:
        # A second of imports, which no call should wait for.
        workflow = await asyncio.to_thread(import_module, "services.scheduler.workflow")
        engine: Engine = workflow.WorkflowEngine(url, settings.scheduler_id, pipeline)
        return engine

    return Executor(
        settings.scheduler_id,
        locks_of(url, settings.data_dir / "sql"),
        store,
        context.clock,
        make_engine,
        publisher.collect_orphans,
    )
