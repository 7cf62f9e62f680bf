"""The servers that `kino bench playback` compares: each a process of its own, serving the same bytes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.runtime.errors import FailedPrecondition

_PEERS = Path(__file__).parent / "peers"
_READY_WITHIN_S = 30.0


class PeerMissing(FailedPrecondition):
    """The benchmark compares with {program}, which is not here: install it ({how})."""

    reason = "PEER_MISSING"
    fields = ("program", "how")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate for 127.0.0.1 and its key, as files."""

    certificate: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> Certificate:
        """A new one, ECDSA P-256, as servers use today."""
        private = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(address, critical=False)
            .sign(private, hashes.SHA256())
        )
        files = cls(certificate=folder / "certificate.pem", key=folder / "key.pem")
        files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


@dataclass(frozen=True)
class Server:
    """A running server: what it costs is asked of its processes."""

    process: subprocess.Popen[bytes]
    address: str

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()

    @property
    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        return cpu_s(self.process.pid)

    @property
    def memory_bytes(self) -> int:
        """Resident memory of its processes."""
        return sum(process.memory_info().rss for process in _tree(self.process.pid))


def cpu_s(pid: int) -> float:
    """Processor time of a process and its descendants so far."""
    times = [process.cpu_times() for process in _tree(pid)]
    return float(sum(one.user + one.system for one in times))


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def started(argv: list[str], address: str, log: Path, env: dict[str, str] | None = None) -> Server:
    """Start a server tied to this process, and wait until it accepts connections."""
    server = Server(_launched(argv, log, env or {}), address)
    host, _, port = address.rpartition(":")
    for _ in range(int(_READY_WITHIN_S / 0.05)):
        if server.process.poll() is not None:
            break
        try:
            socket.create_connection((host, int(port)), 0.5).close()
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return server
    raise RuntimeError(f"{argv[0]} does not serve:\n{await asyncio.to_thread(log.read_text)}")


def _launched(argv: list[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    tied = [sys.executable, "-m", "cli.tether", "0", *argv]
    with log.open("ab") as out:
        return subprocess.Popen(tied, stdout=out, stderr=out, env={**os.environ, **env})


def built_peers(cache: Path) -> Path:
    """The Go program of `bench/peers`, built once per state of its sources. Raises `PeerMissing`."""
    if not shutil.which("go"):
        raise PeerMissing("Go", "https://go.dev/dl")
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / "peers"
    newest = max(source.stat().st_mtime for source in _PEERS.iterdir())
    if not program.exists() or program.stat().st_mtime < newest:
        subprocess.run(["go", "build", "-o", str(program), "."], cwd=_PEERS, check=True)
    return program


NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; root {root};
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5; default_type application/octet-stream;
  types {{ text/html html; text/javascript js; application/vnd.apple.mpegurl m3u8; }}
  server {{ listen 127.0.0.1:{ports[0]} http2; }}
  server {{ listen 127.0.0.1:{ports[1]} http2; http2_chunk_size 256k; output_buffers 2 2m; }}
  server {{ listen 127.0.0.1:{ports[2]}; }}
  server {{ listen 127.0.0.1:{ports[3]} ssl http2; ssl_protocols TLSv1.3;
            ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key}; }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Nginx:
    """nginx as shipped, tuned, over HTTP/1.1 and over TLS: one program, four ports."""

    server: Server
    default: str
    tuned: str
    h1: str
    tls: str

    @classmethod
    async def run(cls, folder: Path, root: Path, tls: Certificate) -> Nginx:
        """Raises `PeerMissing`."""
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if not program:
            raise PeerMissing("nginx", "apt-get install nginx-light")
        ports = [free_port() for _ in range(4)]
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, root=root, ports=ports, tls=tls))
        argv = [program, "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(config)]
        addresses = [f"127.0.0.1:{port}" for port in ports]
        server = await started(argv, addresses[0], folder / "nginx.log")
        default, tuned, h1, secure = addresses
        return cls(server=server, default=default, tuned=tuned, h1=h1, tls=secure)


class Reader:
    """The one reader of all servers: a Go program that is told plans and answers results, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def run(cls, program: Path) -> Reader:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                program, "read", stdin=pipe, stdout=pipe, limit=64 << 20, env={**os.environ, "GOGC": "400"}
            )
        )

    async def read(self, *, may_fail: bool = False, **plan: Any) -> dict[str, Any]:
        """Do what a plan says (see `bench/peers/read.go`). Raises `RuntimeError` when streams failed, unless
        they may: `failed` counts them then.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        plan = {"stream_window": 4 << 20, "connections": plan.get("streams", 1), **plan}
        self._process.stdin.write(json.dumps(plan).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        result: dict[str, Any] = json.loads(line)
        if result["failed"] and not may_fail:
            raise RuntimeError(f"{result['failed']} streams failed: {result['error']}")
        return result

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
