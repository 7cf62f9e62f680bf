"""`kino serve SERVICE…`: any subset of the services in one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from services.runtime.app import builders, running
from services.runtime.memory import settle
from services.runtime.settings import Settings


async def serve(settings: Settings, names: Sequence[str], address_file: Path | None = None) -> None:
    """Serve `names` until SIGINT or SIGTERM, then drain; `address_file` says where as long as it serves."""
    stop = stop_signal()
    async with running(settings, builders(names)) as process:
        if address_file:
            serving = {"pid": os.getpid(), "address": process.address, "services": list(names)}
            ports = {"stream_address": process.server.stream_address, "tls_port": process.server.tls_port}
            write_json(address_file, {**serving, **ports})
        settle()
        await stop.wait()
        if address_file:
            os.unlink(address_file)


def stop_signal() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def write_json(path: Path, value: object) -> None:
    """Write a small file whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value))
    new.replace(path)
