"""Kino as it runs at scale: every service a process of its own, several of some, behind one Envoy.

The engines are given by settings; nothing here is restarted when it is killed.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from cli.children import last_lines
from cli.gateway import SERVICES
from services.runtime.settings import Settings, load_settings
from tests.engines.process import EngineFailed, EngineProcess, free_port

_READY_WITHIN_S = 120.0
#: Starting is processor work alone: more at once only makes each slower.
_STARTS_AT_ONCE = 4
_ADDRESS = "127.0.0.1"

#: How many processes each service has where it is more than one.
SCALED = {"scheduler": 2, "playback": 2, "encoder": 2}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One process of one service."""

    service: str
    number: int
    port: int
    folder: Path
    process: EngineProcess

    @property
    def name(self) -> str:
        """`playback-1`, as in the log's name."""
        return f"{self.service}-{self.number}"

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"{_ADDRESS}:{self.port}"


class Cluster:
    """The processes of Kino; the engines are others'."""

    def __init__(self, folder: Path, settings: Mapping[str, str], scaled: Mapping[str, int] = SCALED) -> None:
        """`settings` are the `KINO_…` of the engines; `scaled` how many processes a service has, else one."""
        self.folder = folder
        self._settings = {**settings, "KINO_KEYS_DIR": str(folder / "keys")}
        self.port = free_port()
        places = [(name, number) for name in SERVICES for number in range(scaled.get(name, 1))]
        ports = {place: free_port() for place in places}
        endpoints = {
            name: ",".join(f"{_ADDRESS}:{port}" for (service, _), port in ports.items() if service == name)
            for name in SERVICES
        }
        self._settings["KINO_ENDPOINTS"] = json.dumps(endpoints)
        self.nodes = {f"{name}-{n}": self._node(name, n, ports[name, n]) for name, n in places}
        self.gateway = EngineProcess(
            "gateway", self._argv("gateway"), self._made("gateway"), self._env("gateway")
        )

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return f"http://{_ADDRESS}:{self.port}"

    @property
    def claim_token(self) -> str:
        """Makes the first operator."""
        return (self.folder / "identity-0" / "run" / "claim").read_text().strip()

    def settings(self) -> Settings:
        """What a process of it is configured with."""
        with patch.dict(os.environ, self._env("doctor")):
            return load_settings()

    def start(self) -> None:
        """Start everything. Raises `EngineFailed`."""
        nodes = list(self.nodes.values())
        for first in range(0, len(nodes), _STARTS_AT_ONCE):
            some = nodes[first : first + _STARTS_AT_ONCE]
            for node in some:
                node.process.launch()
            for node in some:
                node.process.wait((node.folder / "serving.json").exists, _READY_WITHIN_S)
        self.gateway.start(self._answers, _READY_WITHIN_S)

    def stop(self) -> None:
        """End everything that runs, in order."""
        self.gateway.stop()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.process.stop(), self.nodes.values()))

    def _node(self, service: str, number: int, port: int) -> Node:
        name = f"{service}-{number}"
        folder = self._made(name)
        # The gateway asks playback for media where that costs least.
        kind = "KINO_STREAM_PORT" if service == "playback" else "KINO_GRPC_PORT"
        env = {**self._env(name), kind: str(port)}
        if service == "scheduler":
            env["KINO_SCHEDULER_ID"] = f"s{number}"
        if service == "encoder":
            env["KINO_WORKER_ID"] = name
        argv = self._argv("serve", service, "--address-file", str(folder / "serving.json"))
        process = EngineProcess(name, argv, folder, env)
        return Node(service=service, number=number, port=port, folder=folder, process=process)

    def _env(self, name: str) -> dict[str, str]:
        return {
            **self._settings,
            "KINO_DATA_DIR": str(self.folder / name),
            "KINO_GATEWAY_PORT": str(self.port),
            "KINO_LOG_FORMAT": "json",
        }

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", *words]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def print_logs(self, to: TextIO, lines: int = 30) -> None:
        """The end of what each process printed, for whoever has to find out why."""
        for name, node in self.nodes.items():
            to.write(f"--- {name}\n{last_lines(node.process.log_path, lines)}\n")


@contextmanager
def running_cluster(
    folder: Path, settings: Mapping[str, str], scaled: Mapping[str, int] = SCALED
) -> Iterator[Cluster]:
    """Kino's processes on engines that run already, ended afterwards."""
    cluster = Cluster(folder, settings, scaled)
    try:
        cluster.start()
        yield cluster
    except EngineFailed as error:
        raise EngineFailed(f"{error}\nThe logs are below {folder}.") from error
    finally:
        cluster.stop()
