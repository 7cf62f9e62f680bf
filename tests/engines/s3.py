"""S3 services: SeaweedFS from its wheel, MinIO built from source, or one that runs already."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.engines.process import EngineFailed, EngineProcess, cache_folder, free_port, installing

ACCESS_KEY = "kino-tests"
SECRET_KEY = "kino-tests-secret"
#: The last commit before its repository was archived; it has no newer release that the Go proxy carries.
_MINIO = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"


class S3Server:
    """One S3 service of our own."""

    access_key, secret_key = ACCESS_KEY, SECRET_KEY

    def __init__(self, process: EngineProcess, url: str, ready: str) -> None:
        """`ready` is a path that answers 200 once it serves."""
        self._process = process
        self._ready = ready
        self.url = url

    def start(self) -> None:
        """Start, or start again on the same data and port."""
        self._process.start(lambda: _status(self.url, self._ready) == 200)

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()

    def stop(self) -> None:
        """End it; by force, since SeaweedFS takes 20 s over it and nobody reads its data again."""
        self._process.stop(within_s=0.5)


class RunningS3(S3Server):
    """One that somebody else started, named by `KINO_TEST_S3_URL`, `…_ACCESS_KEY` and `…_SECRET_KEY`."""

    def __init__(self, url: str) -> None:
        """Credentials come from the environment."""
        self.url = url
        self.access_key = os.environ.get("KINO_TEST_S3_ACCESS_KEY", ACCESS_KEY)
        self.secret_key = os.environ.get("KINO_TEST_S3_SECRET_KEY", SECRET_KEY)

    def start(self) -> None:
        """It runs."""

    def kill(self) -> None:
        """Not ours to end."""
        raise EngineFailed("this test kills its S3 service: run it without KINO_TEST_S3_URL")

    def stop(self) -> None:
        """Not ours to end."""


def seaweedfs(folder: Path) -> S3Server:
    """SeaweedFS with all its parts in one process; not started yet."""
    program = Path(sys.executable).with_name("weed")
    identity = {
        "name": "kino",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    port = free_port()
    parts = ("master", "volume", "filer", "s3")
    ports = [f"-{part}.port{kind}={free_port()}" for part in parts for kind in ("", ".grpc")]
    ports[-2] = f"-s3.port={port}"
    argv: list[str | Path] = [
        *(program, "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data"),
        *("-s3", f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-s3.iam=false", *ports),
        *("-volume.max=100", "-master.volumeSizeLimitMB=256"),
        # Otherwise a start after a crash waits for an election among one, 12 s.
        *("-master.electionTimeout=1s", "-volume.preStopSeconds=0"),
    ]
    return S3Server(EngineProcess("seaweedfs", argv, folder), f"http://127.0.0.1:{port}", "/healthz")


def minio(folder: Path) -> S3Server:
    """MinIO on four folders (erasure coded), built into the cache when it isn't there; not started yet."""
    port = free_port()
    argv: list[str | Path] = [
        *(minio_program(), "server", "--quiet", "--address", f"127.0.0.1:{port}"),
        str(folder / "d{1...4}"),
    ]
    env = {
        # Without it drives on the system's disk are refused.
        "MINIO_CI_CD": "1",
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    process = EngineProcess("minio", argv, folder, env)
    return S3Server(process, f"http://127.0.0.1:{port}", "/minio/health/cluster")


def minio_program() -> Path:
    """The program, built once into the cache; what the build downloads and makes besides goes again."""
    folder = cache_folder("minio")
    program = folder / "bin" / "minio"
    with installing(folder) as missing:
        if missing:
            scratch = folder / "build"
            env = {
                **os.environ,
                "GOBIN": str(program.parent),
                "GOCACHE": str(scratch / "cache"),
                "GOMODCACHE": str(scratch / "modules"),
                "GOFLAGS": "-modcacherw -trimpath -buildvcs=false -ldflags=-s",
            }
            done = subprocess.run(["go", "install", _MINIO], env=env, capture_output=True, text=True)
            shutil.rmtree(scratch, ignore_errors=True)
            if done.returncode:
                raise EngineFailed(f"MinIO did not build:\n{done.stderr[-2000:]}")
    return program


#: How each is made.
KINDS: dict[str, Callable[[Path], S3Server]] = {"seaweedfs": seaweedfs, "minio": minio}


def _status(url: str, path: str) -> int:
    """The status of a GET; 0 without an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
