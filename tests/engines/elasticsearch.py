"""Elasticsearch from Maven Central: the server's jars, started by `elasticsearch_node/Node.java`.

What Elastic publishes there is the server without its modules: no analysis components, scripts or security.
The index needs none of them. The jars are under the Elastic Licence 2.0: fetched for a test, never shipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.engines.process import EngineFailed, EngineProcess, cache_folder, free_port, installing

VERSION = "9.5.3"
_SOURCES = Path(__file__).with_name("elasticsearch_node")
_OLDEST_JAVA = 21
_ADDRESS = "127.0.0.1"
#: What belongs into the module's own class loader, not beside the server.
_NETTY = ("netty-*", "transport-netty4*", "elasticsearch-ssl-config*")
_DESCRIPTOR = f"""\
name=transport-netty4
description=HTTP and transport
version={VERSION}
elasticsearch.version={VERSION}
java.version={_OLDEST_JAVA}
classname=org.elasticsearch.transport.netty4.Netty4Plugin
modulename=org.elasticsearch.transport.netty4
"""
_SETTINGS = """\
cluster.name: kino-test
node.name: {name}
path.data: {folder}/data
path.logs: {folder}/logs
network.host: {address}
http.port: {port}
transport.port: {transport}
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
"""


def java_home() -> Path:
    """A JDK that the server runs on. Raises `EngineFailed` when there is none."""
    named = [os.environ[name] for name in ("KINO_TEST_JAVA_HOME", "JAVA_HOME") if name in os.environ]
    for home in [*map(Path, named), *sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)]:
        release = home / "release"
        lines = release.read_text().splitlines() if release.is_file() else []
        versions = [line.split('"')[1] for line in lines if line.startswith("JAVA_VERSION=")]
        if versions and int(versions[0].split(".")[0]) >= _OLDEST_JAVA and (home / "bin/javac").exists():
            return home
    raise EngineFailed(f"Elasticsearch needs a JDK {_OLDEST_JAVA} or newer: set KINO_TEST_JAVA_HOME to one.")


def install() -> Path:
    """The folder of the server, made at the first use. Raises `EngineFailed`."""
    home = cache_folder("elasticsearch", VERSION)
    with installing(home) as missing:
        if missing:
            _install(home)
    return home


def _install(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    lib, netty, main = home / "lib", home / "modules" / "transport-netty4", home / "main"
    for folder in (lib, netty, main, home / "plugins"):
        folder.mkdir(parents=True)
    _run("mvn", "-B", "-q", "-f", _SOURCES / "pom.xml", "dependency:copy-dependencies",
         f"-DoutputDirectory={lib}", "-DincludeScope=runtime")  # fmt: skip
    for pattern in _NETTY:
        for jar in lib.glob(pattern):
            jar.rename(netty / jar.name)
    (netty / "plugin-descriptor.properties").write_text(_DESCRIPTOR)
    _link_zstd(lib)
    _run(java_home() / "bin/javac", "-nowarn", "-cp", f"{lib}/*", "-d", main, _SOURCES / "Node.java")


def _link_zstd(lib: Path) -> None:
    """Put the system's libzstd where the server looks for its own; without it the server goes on without."""
    machine = os.uname().machine
    folder = lib / "platform" / {"x86_64": "linux-x64", "aarch64": "linux-aarch64"}.get(machine, machine)
    for found in Path("/usr/lib").glob(f"{machine}-linux-gnu/libzstd.so.1"):
        folder.mkdir(parents=True)
        shutil.copy(found, folder / "libzstd.so")


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineFailed(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")


class ElasticsearchServer:
    """One node, with its data in a folder of its own."""

    def __init__(self, folder: Path, *, heap_mib: int = 384) -> None:
        """Installs the server when it is missing; `start` starts it."""
        home, java = install(), java_home()
        for name in ("config", "data", "logs", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(_SOURCES / "log4j2.properties", folder / "config")
        port = free_port(_ADDRESS)
        (folder / "config" / "elasticsearch.yml").write_text(
            _SETTINGS.format(
                name="node-1", folder=folder, address=_ADDRESS, port=port, transport=free_port(_ADDRESS)
            )
        )
        self.url = f"http://{_ADDRESS}:{port}"
        self.folder = folder
        self.process = EngineProcess("elasticsearch", _command(java, home, folder, heap_mib), folder)

    def start(self, status: str = "yellow") -> None:
        """Start, and return once it takes requests: "yellow" for every index, "red" for those that can."""
        self.process.start(lambda: self._is(status))

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()

    def stop(self) -> None:
        """End it in order."""
        self.process.stop()

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def _is(self, status: str) -> bool:
        try:
            health = request(self.url, f"/_cluster/health?wait_for_status={status}&timeout=1s")
        except OSError:
            return False
        return not health["timed_out"]


def _command(java: Path, home: Path, folder: Path, heap_mib: int) -> list[str]:
    return [
        str(java / "bin/java"),
        f"-Xms{heap_mib}m",
        f"-Xmx{heap_mib}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # half the start's CPU; tests are too short for the better code
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Des.path.home={home}",
        "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",  # its native part isn't published
        "--add-modules=jdk.net,jdk.management.agent,ALL-MODULE-PATH",
        "--enable-native-access=org.elasticsearch.nativeaccess,org.elasticsearch.foreign,org.apache.lucene.core",
        "--module-path", str(home / "lib"),
        "-cp", str(home / "main"),
        "Node", str(home), str(folder / "config"),
    ]  # fmt: skip


def request(url: str, path: str, method: str = "GET", body: Any = None) -> Any:
    """A bare request, for fixtures. Raises `OSError`."""
    asked = urllib.request.Request(url + path, method=method)
    if body is not None:
        asked.data = json.dumps(body).encode()
        asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def drop_indexes(url: str, alias: str) -> None:
    """Delete the indexes of one test."""
    names = ",".join(request(url, f"/{alias}-*?filter_path=*.aliases"))
    if names:
        request(url, f"/{names}?ignore_unavailable=true", "DELETE")
