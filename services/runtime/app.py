"""A process: settings, keys, stores and channels given to each service's `build`, then served together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, cast

import grpc.aio

from services.runtime.auth import ServiceTokens, TokenSigner, TokenVerifier
from services.runtime.channels import Channels
from services.runtime.clock import Clock, SystemClock
from services.runtime.keys import open_keys
from services.runtime.life import Dependency, Life, nothing
from services.runtime.logs import logger
from services.runtime.objects import ObjectStore
from services.runtime.objects_local import LocalObjects
from services.runtime.sealed import Sealer
from services.runtime.server import GrpcServer
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.runtime.sql import Database

_log = logger("app")


@dataclass(frozen=True, kw_only=True)
class ServiceApp:
    """One service, built and ready to be served."""

    #: Short name: `catalog`.
    name: str
    #: Full names of its gRPC services: `kino.catalog.v1.CatalogService`.
    grpc_services: Sequence[str]
    #: Adds its handlers to the server.
    register: Callable[[grpc.aio.Server], None]
    #: Whether it sends media: its methods are served on the stream port too, which `KINO_STREAM_PORT` sets.
    streams: bool = False
    #: The engines it stands on, opened in this order after all services of the process are built.
    dependencies: Sequence[Dependency] = ()
    #: Run beside the server once all engines are there, until cancelled; one that fails is started again.
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    #: Called at shutdown when the gateway sends no new call any more: long streams should end by themselves.
    leave: Callable[[], None] = lambda: None
    #: Awaited once all services of the process answer, before this one reports SERVING.
    ready: Callable[[], Awaitable[None]] = nothing
    #: Awaited at the end, after the last call.
    close: Callable[[], Awaitable[None]] = nothing


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a service is built from."""

    settings: Settings
    clock: Clock
    objects: ObjectStore
    #: Calls other services as this one.
    channels: Channels
    verifier: TokenVerifier
    #: Makes users' access tokens; for identity alone.
    signer: TokenSigner
    sealer: Sealer
    _databases: dict[str, Database] = field(default_factory=dict, repr=False)

    def named(self, service: str) -> Context:
        """The same, calling others as `service`."""
        return replace(self, channels=self.channels.of_service(service))

    def database(self, service: str, *, synchronous: bool = False) -> Database:
        """The database of a service; the same object each time, closed with the process.

        `synchronous`: what it holds must not go with one machine, where the settings say so
        (`sql_synchronous`).
        """
        from services.runtime.sql import Database

        if service not in self._databases:
            self._databases[service] = Database(
                self.settings.database_url(service),
                synchronous=synchronous and self.settings.sql_synchronous,
            )
        return self._databases[service]

    def origin(self, *serves: str) -> Dependency:
        """The object store, as what the health names in `serves` stand on."""
        return Dependency(
            name="object store", serves=serves, open=self.objects.open, check=self.objects.check
        )


Build = Callable[[Context], Awaitable[ServiceApp]]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process that serves."""

    context: Context
    server: GrpcServer
    apps: Sequence[ServiceApp]

    @property
    def address(self) -> str:
        """Where it serves, `host:port`."""
        return self.server.address


def builders(names: Iterable[str]) -> dict[str, Build]:
    """The `build` function of each service, from `services/<name>/bootstrap.py`."""
    return {name: import_module(f"services.{name}.bootstrap").build for name in names}


def object_store(settings: Settings) -> ObjectStore:
    """The object store that the settings choose. Raises `SettingsError`, or what its folder says."""
    if settings.objects_store == "local":
        local = LocalObjects(settings.objects_folder)
        if local.swept:
            _log.warning("removed unfinished writes of a crashed process", count=local.swept)
        return local
    # Imported where it is used: an embedded process starts half a second sooner.
    from services.runtime.objects_s3 import open_s3

    return open_s3(settings)


@asynccontextmanager
async def running(
    settings: Settings, services: Mapping[str, Build], *, clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Build the services, serve them, and at the end drain and close them in the reverse order.

    Raises what a service's `build` raises, with nothing left open.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        keys = open_keys(settings.keys_folder)
        verifier = TokenVerifier(keys.internal, keys.jwks, clock)
        server = GrpcServer(
            settings.grpc_bind, settings.grpc_port, verifier, unary_deadline_s=settings.unary_deadline_s
        )
        stack.push_async_callback(server.stop)
        if settings.tls_certificate and settings.tls_key:
            server.add_tls(settings.tls_port, settings.tls_certificate, settings.tls_key)
        channels = Channels(settings.endpoints, server.address, ServiceTokens(keys.internal, clock))
        stack.push_async_callback(channels.close)
        objects = object_store(settings)
        stack.push_async_callback(objects.close)
        context = Context(
            settings=settings,
            clock=clock,
            objects=objects,
            channels=channels,
            verifier=verifier,
            signer=TokenSigner(keys.signing_pem, clock),
            sealer=Sealer(keys.internal, clock),
        )
        stack.push_async_callback(_close_databases, context)
        apps = [await _built(name, build, context, server, stack) for name, build in services.items()]
        lives = [Life(app, server) for app in apps]
        for life in lives:
            stack.push_async_callback(life.end)
            await life.open()
        await server.start()
        leave = [app.leave for app in apps]
        stack.push_async_callback(
            server.drain, wait_s=settings.drain_s, grace_s=settings.grace_s, leave=leave
        )
        for life in lives:
            await life.begin()
        _log.info("serving", address=server.address, services=[app.name for app in apps])
        yield Running(context=context, server=server, apps=apps)


async def _built(
    name: str, build: Build, context: Context, server: GrpcServer, stack: AsyncExitStack
) -> ServiceApp:
    app = await build(context.named(name))
    stack.push_async_callback(app.close)
    app.register(server.inner)
    if app.streams:
        app.register(cast(grpc.aio.Server, server.add_streams(context.settings.stream_port)))
    server.announce(app.grpc_services, [name for each in app.dependencies for name in each.serves])
    return app


async def _close_databases(context: Context) -> None:
    for database in context._databases.values():
        await database.close()
