"""One fixture for each real engine: started at its first use, once per run, or a running one that is named.

A test that uses one carries the marker `engine`. An engine that can't be had fails the test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engines.elasticsearch import ElasticsearchServer
from tests.engines.postgres import Postgres, PostgresCluster, PostgresServer
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
