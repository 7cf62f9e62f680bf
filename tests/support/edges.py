"""Edges as processes of their own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from services.runtime.settings import Settings
from tests.engines.process import EngineProcess, answers, free_port


@dataclass(frozen=True, kw_only=True)
class EdgeNode:
    """`kino serve edge`."""

    address: str
    process: EngineProcess

    @classmethod
    def launched(cls, folder: Path, services: str, origin: Settings) -> EdgeNode:
        """An edge with its disk in `folder`, before the services at that address; not waited for."""
        port = free_port()
        names = ("catalog", "history", "billing", "identity", "playback")
        env = {
            "KINO_DATA_DIR": str(folder),
            "KINO_KEYS_DIR": str(origin.keys_folder),
            "KINO_OBJECTS_DIR": str(origin.objects_folder),
            "KINO_ENDPOINTS": json.dumps(dict.fromkeys(names, services)),
            "KINO_EDGE_ADDRESS": f"http://127.0.0.1:{port}",
            "KINO_EDGE_DISK_BYTES": str(64 << 20),
            "KINO_STREAM_PORT": str(port),
        }
        folder.mkdir()
        process = EngineProcess("edge", [sys.executable, "-m", "cli.main", "serve", "edge"], folder, env)
        process.launch()
        return cls(address=env["KINO_EDGE_ADDRESS"], process=process)

    def wait(self) -> None:
        """Return once it takes connections."""
        host, _, port = self.address.removeprefix("http://").partition(":")
        self.process.wait(lambda: answers(host, int(port)))
