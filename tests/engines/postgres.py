"""PostgreSQL as plain processes: one server, or a primary with two standbys of which one is waited for."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import TupleRow

from services.runtime.ids import new_id
from tests.engines.process import EngineFailed, EngineProcess, free_port, wait_until

_HOST = "127.0.0.1"
_USER = "kino"
#: The first process that may not be root's; Debian's package makes this user.
_SYSTEM_USER = "postgres"
_LEAST_VERSION = 13
_START_WITHIN_S = 60.0

#: A small server; tests open few connections and hold little.
_SMALL = {
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
    "jit": "off",
    "autovacuum_naptime": "10min",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
#: For a server whose data may go with the machine: what is shared by tests that never crash it.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB"}


def install() -> Path:
    """The folder of the server's programs; installs Debian's package when there is none and we are root.

    Raises `EngineFailed` with what to do.
    """
    found = _installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install_package()
        found = _installed()
    if found is None:
        raise EngineFailed(
            "PostgreSQL's server is missing: run 'apt-get install postgresql' as root, "
            "or name a running one in KINO_TEST_POSTGRES_URL."
        )
    return found


def _installed() -> Path | None:
    """The newest version's programs, from Debian's place or the PATH."""
    folders = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    if folders:
        newest = max(folders, key=lambda folder: int(re.sub(r"\D.*", "", folder.parent.name) or 0))
        if int(newest.parent.name) >= _LEAST_VERSION:
            return newest
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def _install_package() -> None:
    # Debian's package would make a cluster of its own, and start it.
    config = Path("/etc/postgresql-common/createcluster.conf")
    config.parent.mkdir(parents=True, exist_ok=True)
    if not config.exists():
        config.write_text("create_main_cluster = false\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", *options, "postgresql"]):
        subprocess.run(command, env=environment, capture_output=True, check=False)


class Postgres:
    """A server that runs, whoever started it."""

    def __init__(self, url: str) -> None:
        """`url` is a SQLAlchemy URL of the database `postgres`, of a user who may make databases."""
        self._url = url

    def url(self, database: str = "postgres") -> str:
        """A SQLAlchemy URL of one of its databases."""
        before, _, after = self._url.partition("/postgres?")
        return f"{before}/{database}?{after}" if after else f"{self._url.rpartition('/')[0]}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[TupleRow]:
        """Run one statement outside of a transaction; its rows."""
        with psycopg.connect(self._dsn(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, database: str = "postgres") -> Any:
        """The first column of the first row."""
        return self.execute(query, database)[0][0]

    def new_database(self, name: str = "", template: str = "") -> str:
        """Make a database, as a copy of `template` where one is named; returns its name."""
        name = name or f"kino_test_{new_id()}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def drop_database(self, name: str) -> None:
        """Drop it with the connections that are open to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _dsn(self, database: str) -> str:
        return self.url(database).replace("postgresql+psycopg://", "postgresql://")


class PostgresServer(Postgres):
    """One server of ours, on a free port of loopback. Its folder goes with `remove`."""

    def __init__(self, *, name: str = "postgres", settings: Mapping[str, str] | None = None) -> None:
        """`settings` are added to those of a small, durable server. Nothing is made yet."""
        self.name = name
        self.port = free_port()
        super().__init__(f"postgresql+psycopg://{_USER}@{_HOST}:{self.port}/postgres")
        self._bin = install()
        # Not below pytest's own folder, which only its user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix=f"kino-{name}-"))
        self.data = self.folder / "data"
        self._settings = {**_SMALL, **(settings or {})}
        if os.geteuid() == 0:
            user = pwd.getpwnam(_SYSTEM_USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        # INT ends the server without waiting for its clients (TERM would), also when we go without a word.
        self._process = EngineProcess(
            name,
            [*_as_user("--pdeathsig", "INT"), self._bin / "postgres", "-D", self.data],
            self.folder,
            stop_signal=signal.SIGINT,
        )

    @classmethod
    def fast(cls) -> PostgresServer:
        """One that forgets at a crash, for tests that don't crash it."""
        return cls(settings=_FAST)

    @property
    def pid(self) -> int:
        """Process id of the server's first process."""
        return self._process.pid

    def create(self) -> None:
        """Make an empty cluster."""
        options = ["-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N", "--data-checksums"]
        self.run("initdb", "-D", self.data, *options)
        self.configure({})

    def configure(self, settings: Mapping[str, str]) -> None:
        """Add settings; the server reads them at its next start."""
        self._settings |= settings
        places = {
            "listen_addresses": _HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        lines = [f"{name} = '{value}'\n" for name, value in {**self._settings, **places}.items()]
        # Read after postgresql.conf; a copy of another server's folder brings that one's along.
        (self.data / "kino.conf").write_text("".join(lines))
        main = self.data / "postgresql.conf"
        if "include 'kino.conf'" not in main.read_text():
            main.write_text(main.read_text() + "include 'kino.conf'\n")

    def start(self) -> None:
        """Make the cluster if there is none, start it, and return once it answers. Raises `EngineFailed`."""
        if not self.data.exists():
            self.create()
        self._process.start(self.answers, _START_WITHIN_S)

    def stop(self) -> None:
        """End it in order, without waiting for its clients."""
        self._process.stop()

    def kill(self) -> None:
        """End all of its processes at once, as when the machine goes."""
        first = psutil.Process(self.pid)
        children = first.children(recursive=True)
        self._process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, 30)

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            return bool(self.value("SELECT true"))
        except psycopg.Error:
            return False

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of its programs as the user it runs as. Raises `EngineFailed` with what it printed."""
        command = [*_as_user(), str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineFailed(f"{program} failed: {done.stderr or done.stdout}")


class PostgresCluster:
    """A primary and two standbys; a commit returns once the primary and any one standby have applied it."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        settings = {
            "synchronous_commit": "remote_apply",
            "wal_receiver_status_interval": "1s",
            "wal_retrieve_retry_interval": "200ms",
            # What is gone is noticed by its closed connection; this is for what hangs.
            "wal_sender_timeout": "10s",
            "wal_receiver_timeout": "10s",
        }
        self.nodes = [PostgresServer(name=f"postgres-{mark}", settings=settings) for mark in "abc"]
        self.primary = self.nodes[0]

    @property
    def standbys(self) -> list[PostgresServer]:
        """All nodes but the primary, whether they run or not."""
        return [node for node in self.nodes if node is not self.primary]

    def url(self, database: str = "postgres") -> str:
        """A SQLAlchemy URL that names all nodes; the one that takes writes is used."""
        hosts = "&".join(f"host={_HOST}:{node.port}" for node in self.nodes)
        options = "target_session_attrs=read-write&connect_timeout=3"
        return f"postgresql+psycopg://{_USER}@/{database}?{hosts}&{options}"

    def start(self) -> None:
        """Start all three, and return once both standbys follow."""
        self.primary.start()
        for standby in self.standbys:
            self.add_standby(standby)
        self.require_standby()

    def stop(self) -> None:
        """End and remove everything; standbys first, so that nothing is left to wait for."""
        for node in [*self.standbys, self.primary]:
            node.remove()

    def add_standby(self, node: PostgresServer) -> None:
        """Make `node`, which doesn't run, a fresh copy of the primary that follows it."""
        shutil.rmtree(node.data, ignore_errors=True)
        self._make_slot(node)
        node.run(
            "pg_basebackup",
            *("-d", self._conninfo(node), "-D", node.data, "-X", "stream", "-S", _slot(node)),
            *("-c", "fast", "-N", "-R"),
        )
        node.configure({})
        node.start()

    def promote(self) -> PostgresServer:
        """Make the standby that has most the primary, and let the other one follow it; returns it.

        The old primary must not run. Nothing that was acknowledged is lost: a commit waited for one standby
        at least, and what each holds is a beginning of the same log.
        """
        running = [node for node in self.standbys if node.answers()]
        self.primary = max(running, key=lambda node: _received(node))
        self.primary.execute("SELECT pg_promote(true, 60)")
        for node in running:
            if node is not self.primary:
                self._make_slot(node)
                _set(node, "primary_conninfo", self._conninfo(node))
        self.require_standby()
        return self.primary

    def wait_for_standbys(self, count: int) -> None:
        """Return once so many standbys follow and count for a commit."""
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state <> 'async'"
        wait_until(lambda: self.primary.value(query) == count, 30, f"{count} synchronous standbys")

    def require_standby(self) -> None:
        """Let commits wait for any one standby. A promoted node has no such rule until it is told."""
        names = ", ".join(_slot(node) for node in self.standbys)
        _set(self.primary, "synchronous_standby_names", f"ANY 1 ({names})")
        self.wait_for_standbys(sum(1 for node in self.standbys if node.answers()))

    def _make_slot(self, node: PostgresServer) -> None:
        found = f"SELECT FROM pg_replication_slots WHERE slot_name = '{_slot(node)}'"
        if not self.primary.execute(found):
            self.primary.execute(f"SELECT pg_create_physical_replication_slot('{_slot(node)}', true)")

    def _conninfo(self, node: PostgresServer) -> str:
        return f"host={_HOST} port={self.primary.port} user={_USER} application_name={_slot(node)}"


def _slot(node: PostgresServer) -> str:
    return node.name.replace("-", "_")


def _set(node: PostgresServer, name: str, value: str) -> None:
    node.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    node.execute("SELECT pg_reload_conf()")


def _received(node: PostgresServer) -> int:
    return int(node.value("SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')"))


def _as_user(*options: str) -> Sequence[str]:
    """The words before a program's name that run it as another user than root, which it refuses."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(_SYSTEM_USER)
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ["setpriv", *identity, *options, "--"]
