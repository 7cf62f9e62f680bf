"""All real engines together, with the settings that choose them; or those that run already."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engines.cassandra import CassandraCluster
from tests.engines.elasticsearch import ElasticsearchServer
from tests.engines.postgres import Postgres, PostgresCluster
from tests.engines.s3 import RunningS3, S3Server, seaweedfs

_CONFIG = Path(__file__).parents[2] / "deploy" / "cluster.toml"
#: What has a database of its own.
_DATABASES = ("identity", "billing", "catalog", "ingest", "scheduler", "workflows", "playback")


@dataclass(frozen=True, kw_only=True)
class RealEngines:
    """Engines that run."""

    #: `KINO_…` of every process.
    settings: dict[str, str]
    summary: str
    #: Kills the primary, promotes a standby; says what it did. None for a server that isn't ours.
    lose_postgres_primary: Callable[[], str] | None
    #: Kills one of the nodes; says which. None for a cluster that isn't ours.
    lose_cassandra_node: Callable[[], str] | None


@contextmanager
def real_engines() -> Iterator[RealEngines]:
    """Start PostgreSQL (with two standbys), Cassandra (three nodes), S3 and Elasticsearch, and end them.

    One that is named in the environment (`KINO_TEST_POSTGRES_URL`, `KINO_TEST_CASSANDRA`, `KINO_TEST_S3_URL`,
    `KINO_TEST_ELASTICSEARCH_URL`) is used instead.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kino-engines-")))
        makers = (_postgres, _cassandra, _s3, _elasticsearch)
        with ThreadPoolExecutor(len(makers)) as pool:
            started = [pool.submit(make, folder) for make in makers]
        for one in started:
            # Those that started end, also where another one did not.
            if one.exception() is None:
                stack.callback(one.result()[-1])
        (sql, lose_primary, _), (history, lose_node, _), (objects, _, _), (search, _, _) = (
            one.result() for one in started
        )
        yield RealEngines(
            settings={"KINO_CONFIG": str(_CONFIG), **sql, **history, **objects, **search},
            summary="PostgreSQL with two standbys, three Cassandra nodes, S3, Elasticsearch",
            lose_postgres_primary=lose_primary,
            lose_cassandra_node=lose_node,
        )


_Started = tuple[dict[str, str], Callable[[], str] | None, Callable[[], None]]


def _postgres(_: Path) -> _Started:
    if url := os.environ.get("KINO_TEST_POSTGRES_URL"):
        running = Postgres(url)
        _make_databases(running)
        return {"KINO_SQL_URL": running.url("kino_{service}"), "KINO_SQL_SYNCHRONOUS": "false"}, None, _leave
    cluster = PostgresCluster()
    cluster.start()
    _make_databases(cluster.primary)

    def lose() -> str:
        lost = cluster.primary.name
        cluster.primary.kill()
        return f"{lost} killed, {cluster.promote().name} promoted"

    return {"KINO_SQL_URL": cluster.url("kino_{service}")}, lose, cluster.stop


def _make_databases(server: Postgres) -> None:
    for name in _DATABASES:
        server.drop_database(f"kino_{name}")
        server.new_database(f"kino_{name}")


def _cassandra(folder: Path) -> _Started:
    if hosts := os.environ.get("KINO_TEST_CASSANDRA"):
        return {"KINO_CASSANDRA_HOSTS": json.dumps(hosts.split(","))}, None, _leave
    cluster = CassandraCluster(folder / "cassandra", 3)
    cluster.start()

    def lose() -> str:
        cluster.nodes[1].process.kill()
        return f"{cluster.nodes[1].host} killed"

    return {"KINO_CASSANDRA_HOSTS": json.dumps(cluster.hosts)}, lose, cluster.stop


def _s3(folder: Path) -> _Started:
    url = os.environ.get("KINO_TEST_S3_URL")
    (folder / "s3").mkdir()
    server: S3Server = RunningS3(url) if url else seaweedfs(folder / "s3")
    server.start()
    settings = {
        "KINO_S3_URL": server.url,
        "KINO_S3_ACCESS_KEY": server.access_key,
        "KINO_S3_SECRET_KEY": server.secret_key,
    }
    return settings, None, server.stop


def _elasticsearch(folder: Path) -> _Started:
    if url := os.environ.get("KINO_TEST_ELASTICSEARCH_URL"):
        return {"KINO_ELASTICSEARCH_URLS": json.dumps([url])}, None, _leave
    server = ElasticsearchServer(folder / "elasticsearch")
    server.start()
    return {"KINO_ELASTICSEARCH_URLS": json.dumps([server.url])}, None, server.stop


def _leave() -> None:
    """It isn't ours to end."""
