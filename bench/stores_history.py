"""History through the port against the same statements on the bare driver; SQLite beside Cassandra.

The bare side sends what the port was seen to send for the same calls: prepared statements in as many threads
as the port has calls at a time, the two reads that begin a call at once, the others one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from cassandra.query import BatchStatement, BatchType

from bench.report import Row
from bench.timing import Times, rows
from services.history.cassandra import Cassandra, Rows, Statement, connect
from services.history.model import Key, Order, Report
from services.history.store import HistoryStore
from services.history.store_cassandra import CassandraHistory
from services.history.store_sql import SqlHistory
from services.runtime.claims import temporary
from services.runtime.settings import Settings
from services.runtime.sql import Database
from tests.engines.cassandra import CassandraCluster

_AT_A_TIME = 8
CALLS = 80
#: Views there are, ten of a profile.
VIEWS, _PROFILES = 40, 4
_DAY_S = 86_400
_SECOND_NS = 1_000_000_000
_BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
_BARE = "bare driver in threads"
#: What was sent for one call, each a statement by itself or a batch of them.
Sent = list[Sequence[Statement]]


class _Noting(Cassandra):
    """Notes what is sent."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.sent: Sent = []

    async def run(self, cql: str, *values: Any) -> Rows:
        """See `Cassandra.run`."""
        self.sent.append([(cql, values)])
        return await super().run(cql, *values)

    async def batch(self, statements: Sequence[Statement]) -> None:
        """See `Cassandra.batch`."""
        if len(statements) > 1:
            self.sent.append(statements)
        await super().batch(statements)


class _Bare:
    """The driver alone."""

    def __init__(self, settings: Settings) -> None:
        self._session = connect(settings)
        self._session.set_keyspace(settings.cassandra_keyspace)
        self._prepared: dict[str, Any] = {}

    def close(self) -> None:
        self._session.cluster.shutdown()

    def replay(self, sent: Sent) -> None:
        """Send what one call sent, and wait for every answer."""
        reads = [self._session.execute_async(self._bound(*one[0])) for one in sent[:2]]
        for read in reads:
            read.result()
        for statements in sent[2:]:
            if len(statements) == 1:
                self._session.execute(self._bound(*statements[0]))
                continue
            batch = BatchStatement(BatchType.UNLOGGED)
            for statement in statements:
                batch.add(self._bound(*statement))
            self._session.execute(batch)

    def _bound(self, cql: str, values: Sequence[Any]) -> Any:
        if cql not in self._prepared:
            self._prepared[cql] = self._session.prepare(cql)
        return self._prepared[cql].bind(values)


async def measure(rounds: int) -> list[Row]:
    """Rates and waits of recording a report, reading a view and listing a profile's."""
    async with AsyncExitStack() as stack:
        scratch = stack.enter_context(temporary("bench"))
        cluster = CassandraCluster(scratch / "cassandra", 1)
        stack.callback(cluster.stop)
        await asyncio.to_thread(cluster.start)
        settings = Settings(
            history_store="cassandra",
            cassandra_hosts=cluster.hosts,
            cassandra_replication=1,
            data_dir=scratch,
        )
        noting, plain = _Noting(settings), Cassandra(settings)
        for cassandra in (noting, plain):
            stack.push_async_callback(cassandra.close)
            await cassandra.open()
        database = Database(f"sqlite:///{scratch}/history.db")
        stack.push_async_callback(database.close)
        await database.migrate("services.history")
        bare = await asyncio.to_thread(_Bare, settings)
        stack.callback(bare.close)
        pool = stack.enter_context(ThreadPoolExecutor(_AT_A_TIME))
        noted = await _note(noting)
        stores: dict[str, HistoryStore] = {
            "cassandra": CassandraHistory(plain),
            "sqlite": SqlHistory(database),
        }
        return await _measured(stores, bare, pool, noted, rounds)


async def _note(noting: _Noting) -> dict[str, list[Sent]]:
    """What each kind of call sends."""
    noted: dict[str, list[Sent]] = {}
    store = CassandraHistory(noting)
    for kind, call in calls(store).items():
        for number in range(2 * VIEWS):
            noting.sent = []
            await call(number)
            # A view's first report sends more than all that follow.
            if number >= VIEWS:
                noted.setdefault(kind, []).append(noting.sent)
    return noted


async def _measured(
    stores: dict[str, HistoryStore],
    bare: _Bare,
    pool: ThreadPoolExecutor,
    noted: dict[str, list[Sent]],
    rounds: int,
) -> list[Row]:
    loop, numbers = asyncio.get_running_loop(), itertools.count(2 * VIEWS)
    times = {kind: {name: Times() for name in (*stores, _BARE)} for kind in noted}

    for turn in range(rounds + 1):
        for kind, of_kind in times.items():
            keys = [next(numbers) for _ in range(CALLS)]

            def replayed(number: int, sent: list[Sent] = noted[kind]) -> Awaitable[None]:
                return loop.run_in_executor(pool, bare.replay, sent[number % len(sent)])

            ways = {name: calls(store)[kind] for name, store in stores.items()} | {_BARE: replayed}
            for name, call in ways.items():
                # The first round opens connections and prepares.
                await (of_kind[name] if turn else Times()).round(call, keys, at_a_time=_AT_A_TIME)
    return [
        row
        for kind, of_kind in times.items()
        for row in rows(f"history: {kind}", of_kind, peer=_BARE, ours="cassandra")
    ]


def calls(store: HistoryStore) -> dict[str, Callable[[int], Awaitable[object]]]:
    return {
        "record": lambda number: store.record(_report(number)),
        "view": lambda number: store.view(_report(number).key),
        "views": lambda number: store.views(_report(number).key.profile, None, 20),
    }


def _report(number: int) -> Report:
    """The next report of one of the views, from a viewer who began at the start and is further on."""
    view, position_ns = number % VIEWS, (number + 5) * _SECOND_NS
    return Report(
        key=Key(profile=f"users/u/profiles/p{view % _PROFILES}", title=f"titles/t{view}"),
        order=Order(start_time=_BEGAN, lease="leases/bench", sequence=number + 1),
        position_ns=position_ns,
        intervals=((0, position_ns),),
        duration_ns=100_000 * _SECOND_NS,
        device="bench",
        receive_time=_BEGAN + timedelta(seconds=number % _DAY_S),
    )
