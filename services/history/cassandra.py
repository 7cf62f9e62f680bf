"""A cluster of Cassandra behind asyncio: the driver's own threads do the waiting, none is held by a call.

Imported only where Cassandra is configured: the driver takes half a second to import. Every statement given
to `run` and `batch` must be idempotent: it is repeated when an answer is lost, and a second node is asked
when the first is slow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    DriverException,
    InvalidRequest,
    RequestValidationException,
    Unauthorized,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    Session,
)
from cassandra.connection import ConnectionException
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    RetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import BatchStatement, BatchType, PreparedStatement, tuple_factory

from services.history import cql_migrations
from services.history.errors import HistoryMisconfigured, HistoryUnavailable
from services.runtime.call import remaining_s
from services.runtime.errors import DeadlineExceeded
from services.runtime.life import Dependency
from services.runtime.settings import Settings

#: A statement and its values, in the order of its question marks.
Statement = tuple[str, Sequence[Any]]
Rows = list[tuple[Any, ...]]

_DEFAULT_PORT = 9042
_CONNECT_TIMEOUT_S = 5.0
_REQUEST_TIMEOUT_S = 10.0
#: A node that has not answered after so long may be dying: a second one is asked as well.
_SPECULATE_AFTER_S = 0.5
_MAX_RECONNECT_S = 2.0
_RETRY_AFTER_MS = 1_000


class _Retry(RetryPolicy):  # type: ignore[misc]
    """Once more when the outcome of an idempotent statement is unknown; else as the driver does."""

    def on_write_timeout(
        self, query: Any, consistency: int, *_: object, retry_num: int = 0, **__: object
    ) -> Any:
        if retry_num == 0 and query is not None and query.is_idempotent:
            return self.RETRY, consistency
        return self.RETHROW, None

    on_read_timeout = on_write_timeout


class Cassandra:
    """One keyspace of a cluster."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected until `open`."""
        self._settings = settings
        self._session: Session | None = None
        self._prepared: dict[str, PreparedStatement] = {}
        self._answers: deque[tuple[asyncio.Future[Rows], Rows | Exception | None]] = deque()
        self._awaited = False

    async def open(self) -> None:
        """Connect, make the keyspace where it is missing, bring the schema up to date.

        Raises `HistoryUnavailable`, and `HistoryMisconfigured` for what waiting does not mend.
        """
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await asyncio.to_thread(session.cluster.shutdown)

    async def run(self, cql: str, *values: Any) -> Rows:
        """Run one statement at LOCAL_QUORUM; its rows. Raises `HistoryUnavailable`."""
        return await self._send((await self._statement(cql)).bind(values))

    async def batch(self, statements: Sequence[Statement]) -> None:
        """Run statements on one partition as a whole: all of them are stored or none."""
        if len(statements) < 2:
            for cql, values in statements:
                await self.run(cql, *values)
            return
        batch = BatchStatement(BatchType.UNLOGGED)
        batch.is_idempotent = True
        for cql, values in statements:
            batch.add((await self._statement(cql)).bind(values))
        await self._send(batch)

    async def check(self) -> None:
        """A sign of life of a quorum. Raises `HistoryUnavailable`."""
        await self.run(cql_migrations.APPLIED)

    def dependency(self, *serves: str) -> Dependency:
        """This cluster, as what the health names in `serves` stand on."""
        return Dependency(name="cassandra", serves=serves, open=self.open, check=self.check)

    async def _statement(self, cql: str) -> PreparedStatement:
        """Prepared at its first use; the driver does it again on nodes that forgot."""
        if cql not in self._prepared:
            session = self._connected()
            try:
                prepared = await asyncio.to_thread(session.prepare, cql)
            except Exception as error:
                raise typed(error) from error
            prepared.is_idempotent = True
            self._prepared[cql] = prepared
        return self._prepared[cql]

    async def _send(self, statement: Any) -> Rows:
        session, loop = self._connected(), asyncio.get_running_loop()
        left_s = remaining_s()
        if left_s == 0:
            raise DeadlineExceeded()
        timeout_s = min(_REQUEST_TIMEOUT_S, left_s or _REQUEST_TIMEOUT_S)
        answer: asyncio.Future[Rows] = loop.create_future()

        def answered(result: Rows | Exception | None) -> None:
            self._answers.append((answer, result))
            if not self._awaited:  # one wake-up for many answers
                self._awaited = True
                loop.call_soon_threadsafe(self._deliver)

        try:
            session.execute_async(statement, timeout=timeout_s).add_callbacks(answered, answered)
            return await answer
        except Exception as error:
            raise typed(error) from error

    def _deliver(self) -> None:
        self._awaited = False
        while self._answers:
            answer, result = self._answers.popleft()
            if answer.done():  # its caller was cancelled
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result or [])

    def _connected(self) -> Session:
        if self._session is None:
            raise HistoryUnavailable(retry_after_ms=_RETRY_AFTER_MS)
        return self._session

    def _open(self) -> None:
        session = connect(self._settings)
        try:
            cql_migrations.upgrade(session, self._settings.cassandra_keyspace, _replication(self._settings))
        except Exception as error:
            session.cluster.shutdown()
            raise typed(error) from error
        self._session = session


def connect(settings: Settings) -> Session:
    """A session without a keyspace; it blocks. Raises `HistoryUnavailable` and `HistoryMisconfigured`."""
    cluster = _cluster(settings)
    try:
        return cluster.connect()
    except Exception as error:
        known = sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
        cluster.shutdown()
        if known and settings.cassandra_datacenter not in known:
            raise HistoryMisconfigured(
                f"Cassandra has no datacenter {settings.cassandra_datacenter}:"
                f" set KINO_CASSANDRA_DATACENTER to one of {', '.join(known)}."
            ) from error
        raise typed(error) from error


def _cluster(settings: Settings) -> Cluster:
    if not settings.cassandra_hosts:
        raise HistoryMisconfigured("No node of Cassandra is named: set KINO_CASSANDRA_HOSTS.")
    user, password = settings.cassandra_username, settings.cassandra_password.get_secret_value()
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(settings.cassandra_datacenter)),
        retry_policy=_Retry(),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=_REQUEST_TIMEOUT_S,
        row_factory=tuple_factory,
        speculative_execution_policy=ConstantSpeculativeExecutionPolicy(_SPECULATE_AFTER_S, 1),
    )
    return Cluster(
        contact_points=[endpoint(host) for host in settings.cassandra_hosts],
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        protocol_version=5,
        auth_provider=PlainTextAuthProvider(user, password) if user else None,
        reconnection_policy=ExponentialReconnectionPolicy(0.2, _MAX_RECONNECT_S, None),
        connect_timeout=_CONNECT_TIMEOUT_S,
        control_connection_timeout=_CONNECT_TIMEOUT_S,
    )


def endpoint(host: str) -> tuple[str, int]:
    """`host:port`, or a host with Cassandra's usual port, as the driver takes it."""
    name, _, port = host.rpartition(":")
    return (name, int(port)) if name and port.isdigit() else (host, _DEFAULT_PORT)


def _replication(settings: Settings) -> dict[str, str | int]:
    return {
        "class": "NetworkTopologyStrategy",
        settings.cassandra_datacenter: settings.cassandra_replication,
    }


def typed(error: Exception) -> Exception:
    """The error in the suite's words; what only a bug can cause stays as it is."""
    tried = error.errors if isinstance(error, NoHostAvailable) and isinstance(error.errors, dict) else {}
    for cause in [error, *tried.values()]:
        if isinstance(cause, AuthenticationFailed):
            return HistoryMisconfigured(
                "Cassandra refuses the login: set KINO_CASSANDRA_USERNAME and KINO_CASSANDRA_PASSWORD."
            )
        if isinstance(cause, Unauthorized):
            return HistoryMisconfigured(f"Cassandra refuses what Kino needs: {cause}.")
        if isinstance(cause, InvalidRequest) and "does not exist" in str(cause):
            # The driver counts a schema as agreed without nodes that it holds for down: one that comes back,
            # or joins, learns of a new table a moment after it takes requests.
            return HistoryUnavailable(retry_after_ms=_RETRY_AFTER_MS)
    away = isinstance(error, NoHostAvailable | DriverException | ConnectionException)
    if away and not isinstance(error, RequestValidationException):
        return HistoryUnavailable(retry_after_ms=_RETRY_AFTER_MS)
    return error
