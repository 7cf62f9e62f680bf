"""Cassandra 5 for the tests: its jars by Maven, run by Java 17 (no later one), one node or a ring of them.

The commit log is synced in batches, since `periodic` loses acknowledged writes at a crash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from services.runtime.ids import new_id
from tests.engines.process import (
    EngineFailed,
    EngineProcess,
    answers,
    cache_folder,
    free_port,
    installing,
)

_CONF = Path(__file__).parent / "cassandra"
_FOREIGN = "osx-aarch_64,osx-x86_64,linux-aarch_64,linux-riscv64,windows-x86_64"
_RING = 1 << 64


def install() -> Path:
    """The folder of jars; fetched once."""
    folder = cache_folder("cassandra")
    with installing(folder) as missing:
        if missing:
            _need("mvn", "maven")
            fetch = ["mvn", "-B", "-q", "-f", str(_CONF / "pom.xml"), "dependency:copy-dependencies"]
            options = [
                f"-DoutputDirectory={folder}",
                "-DincludeScope=runtime",
                f"-DexcludeClassifiers={_FOREIGN}",
            ]
            subprocess.run([*fetch, *options], check=True, timeout=600)
    return folder


def java() -> Path:
    """A Java 17 that runs Cassandra: of `CASSANDRA_JAVA_HOME`, else the system's, else installed by root."""
    if named := os.environ.get("CASSANDRA_JAVA_HOME"):
        return Path(named) / "bin" / "java"
    if not _javas():
        _apt("openjdk-17-jre-headless")
    return _javas()[0]


def _javas() -> list[Path]:
    return sorted(Path("/usr/lib/jvm").glob("*17*/bin/java"))


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        _apt(package)


def _apt(package: str) -> None:
    if os.geteuid() != 0:
        raise EngineFailed(f"{package} is missing: run `apt-get install {package}` as root")
    subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=600)
    subprocess.run(["apt-get", "install", "-qq", "--yes", package], check=True, timeout=1200)


class CassandraNode:
    """One node; its data lies in `folder` and outlives a kill."""

    def __init__(
        self,
        folder: Path,
        address: str,
        ports: tuple[int, int],
        token: int | None = None,
        *,
        password: bool = False,
    ) -> None:
        """`ports`: of CQL and of the ring; `password` asks clients for a login (`cassandra`, twice)."""
        self.address, self.port = address, ports[0]
        folder.mkdir(parents=True, exist_ok=True)
        settings = _settings(folder, address, ports, token) | _access(password)
        (folder / "cassandra.yaml").write_text(yaml.safe_dump(settings))
        argv: list[str | Path] = [
            java(),
            f"@{_CONF / 'jvm.options'}",
            f"-Dcassandra.config=file://{folder / 'cassandra.yaml'}",
            f"-Dcassandra.storagedir={folder}",
            f"-Dlogback.configurationFile={_CONF / 'logback.xml'}",
            *("-cp", f"{install()}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]
        self.process = EngineProcess(f"cassandra-{address}", argv, folder)

    @property
    def host(self) -> str:
        """`address:port`, as the settings name it."""
        return f"{self.address}:{self.port}"

    def start(self) -> None:
        """Start; returns when it takes clients."""
        self.process.start(lambda: answers(self.address, self.port), 180)


class CassandraCluster:
    """Nodes on 127.0.0.1, 127.0.0.2, …, each owning its part of the ring."""

    def __init__(self, folder: Path, nodes: int = 1, *, password: bool = False) -> None:
        """Nothing runs yet."""
        addresses = [f"127.0.0.{number + 1}" for number in range(nodes)]
        ports = (_free(addresses), _free(addresses))
        self.nodes = [
            CassandraNode(
                folder / address, address, ports, number * _RING // nodes - _RING // 2, password=password
            )
            for number, address in enumerate(addresses)
        ]

    @property
    def hosts(self) -> list[str]:
        """Where clients connect."""
        return [node.host for node in self.nodes]

    def start(self, nodes: Sequence[CassandraNode] | None = None) -> None:
        """Start these nodes, or all: the first one first, since the others join by it."""
        first, *others = nodes or self.nodes
        first.start()
        with ThreadPoolExecutor() as threads:
            list(threads.map(CassandraNode.start, others))

    def stop(self) -> None:
        """End all in order."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda node: node.process.stop(), self.nodes))


def cassandra_settings(hosts: Sequence[str], keyspace: str, replication: int) -> dict[str, Any]:
    """Settings of history on these nodes."""
    return {
        "history_store": "cassandra",
        "cassandra_hosts": list(hosts),
        "cassandra_keyspace": keyspace,
        "cassandra_replication": replication,
    }


@contextmanager
def dropped_at_end(hosts: Sequence[str]) -> Iterator[str]:
    """The name of a keyspace that nobody has yet, and that is gone afterwards."""
    # The driver takes half a second to import, which runs without an engine need not pay.
    from cassandra.cluster import Cluster

    from services.history.cassandra import endpoint

    keyspace = f"test_{new_id()}"
    try:
        yield keyspace
    finally:
        with Cluster([endpoint(host) for host in hosts], protocol_version=5) as cluster:
            cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}")


def _free(addresses: Sequence[str]) -> int:
    """A port that is free on all of them."""
    while True:
        port = free_port(addresses[0])
        if not any(answers(address, port) for address in addresses):
            return port


def _access(password: bool) -> dict[str, object]:
    if not password:
        return {}
    # What was granted a moment ago must count, so that nothing of it is kept in memory.
    unkept: dict[str, object] = {
        f"{what}_validity": "0ms" for what in ("permissions", "roles", "credentials")
    }
    return unkept | {"authenticator": "PasswordAuthenticator", "authorizer": "CassandraAuthorizer"}


def _settings(folder: Path, address: str, ports: tuple[int, int], token: int | None) -> dict[str, object]:
    """`cassandra.yaml` of a node that is small, and sure of what it acknowledged."""
    folders = {
        f"{name}_directory": str(folder / name) for name in ("commitlog", "saved_caches", "hints", "cdc_raw")
    }
    seeds = {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider"}
    return folders | {
        "cluster_name": "kino-tests",
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "num_tokens": 1,
        "initial_token": str(token),
        "auto_bootstrap": False,
        "seed_provider": [seeds | {"parameters": [{"seeds": f"127.0.0.1:{ports[1]}"}]}],
        "listen_address": address,
        "rpc_address": address,
        "native_transport_port": ports[0],
        "storage_port": ports[1],
        "data_file_directories": [str(folder / "data")],
        "commitlog_sync": "batch",
        "commitlog_segment_size": "8MiB",
        "commitlog_total_space": "128MiB",
        "memtable_heap_space": "64MiB",
        "memtable_offheap_space": "32MiB",
        "key_cache_size": "8MiB",
        "counter_cache_size": "0MiB",
        "file_cache_size": "32MiB",
        "networking_cache_size": "32MiB",
        "native_transport_max_threads": 32,
        "concurrent_reads": 16,
        "concurrent_writes": 16,
        "concurrent_compactors": 1,
        "auto_snapshot": False,
    }
