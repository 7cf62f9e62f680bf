"""One fixture for each real engine: started at its first use, once per run, or a running one that is named.

A test that uses one carries the marker `engine`. An engine that can't be had fails the test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.engines.cassandra import CassandraCluster, cassandra_settings, dropped_at_end
from tests.engines.elasticsearch import ElasticsearchServer
from tests.engines.postgres import Postgres, PostgresCluster, PostgresServer
from tests.engines.s3 import KINDS, RunningS3, S3Server
from tests.support.databases import PostgresTemplates


@pytest.fixture(scope="session")
def elasticsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node of Elasticsearch; a test names its own index."""
    if url := os.environ.get("KINO_TEST_ELASTICSEARCH_URL"):
        yield url
        return
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for tests that neither crash nor stop it: quick, and its data goes with the machine."""
    if url := os.environ.get("KINO_TEST_POSTGRES_URL"):
        yield Postgres(url)
        return
    server = PostgresServer.fast()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_templates(postgres: Postgres) -> Iterator[PostgresTemplates]:
    """Migrated databases to copy."""
    templates = PostgresTemplates(postgres)
    yield templates
    templates.drop()


@pytest.fixture(scope="module")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A primary and two synchronous standbys that lose nothing, for a module that brings them down.

    A test leaves behind a primary with two standbys, whichever node is which.
    """
    cluster = PostgresCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def cassandra_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """One node of Cassandra, or `KINO_TEST_CASSANDRA` (`host:port`, several by commas)."""
    if named := os.environ.get("KINO_TEST_CASSANDRA"):
        yield named.split(",")
        return
    with _started(CassandraCluster(tmp_path_factory.mktemp("cassandra"))) as cluster:
        yield cluster.hosts


@pytest.fixture(scope="module")
def cassandra(cassandra_hosts: list[str]) -> Iterator[dict[str, Any]]:
    """Settings of history on that Cassandra, in a keyspace for the tests of one module."""
    with dropped_at_end(cassandra_hosts) as keyspace:
        yield cassandra_settings(cassandra_hosts, keyspace, replication=1)


@pytest.fixture(scope="module")
def cassandra_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraCluster]:
    """Three nodes of our own, to be killed and started again."""
    with _started(CassandraCluster(tmp_path_factory.mktemp("cassandra-cluster"), 3)) as cluster:
        yield cluster


@contextmanager
def _started(cluster: CassandraCluster) -> Iterator[CassandraCluster]:
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], S3Server]]:
    """By its kind, `seaweedfs` or `minio`, an S3 service of the run; never stopped by a test."""
    servers: dict[str, S3Server] = {}

    def server(kind: str) -> S3Server:
        if kind not in servers:
            servers[kind] = KINDS[kind](tmp_path_factory.mktemp(kind))
            servers[kind].start()
        return servers[kind]

    yield server
    for started in servers.values():
        started.stop()


@pytest.fixture(scope="session")
def s3(s3_server: Callable[[str], S3Server]) -> S3Server:
    """The run's S3 service: SeaweedFS, or the one that `KINO_TEST_S3_URL` names."""
    url = os.environ.get("KINO_TEST_S3_URL")
    return RunningS3(url) if url else s3_server("seaweedfs")
