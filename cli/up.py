"""`kino up`: the whole suite on one machine. Services in this process, encoders and Envoy as children."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cli.children import Child
from cli.gateway import SERVICES, Gateway
from cli.serve import write_json
from services.runtime.app import Running, builders, running
from services.runtime.errors import FailedPrecondition
from services.runtime.keys import open_keys
from services.runtime.settings import Settings

#: Encoders run as processes of their own; everything else shares this one.
_IN_PROCESS = tuple(name for name in SERVICES if name != "encoder")
_WORKER_NICENESS = 10


class AlreadyRunning(FailedPrecondition):
    """Kino already runs on {data_dir} (process {pid}): stop it, or set KINO_DATA_DIR to another folder."""

    reason = "ALREADY_RUNNING"
    fields = ("data_dir", "pid")


class PortTaken(FailedPrecondition):
    """Port {port} is in use on {bind}: stop what listens there, or choose another with --port."""

    reason = "PORT_IN_USE"
    fields = ("port", "bind")


class FolderUnusable(FailedPrecondition):
    """The data folder {data_dir} can't be written ({problem}): set KINO_DATA_DIR to a folder that can."""

    reason = "DATA_DIR_UNUSABLE"
    fields = ("data_dir", "problem")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite that runs."""

    url: str
    data_dir: Path
    process: Running
    workers: list[Child]
    gateway: Child
    #: The one-time token that makes the first operator; None once it was used.
    claim_token: str | None


@asynccontextmanager
async def suite(settings: Settings) -> AsyncIterator[Suite]:
    """Start everything, and at the end stop it in order: gateway, workers, services.

    Raises a `KinoError` with one sentence when the folder, the port or a program can't be used.
    """
    with _owned(settings.data_dir) as run:
        port = _free_port(settings.bind, settings.gateway_port)
        keys = open_keys(settings.keys_folder)
        logs = settings.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        gateway = Gateway(
            run / "gateway", bind=settings.bind, port=port, jwks=keys.jwks_path, log_path=logs / "gateway.log"
        )
        async with AsyncExitStack() as stack:
            await gateway.child.start()
            stack.push_async_callback(gateway.child.stop)
            process = await stack.enter_async_context(running(settings, builders(_IN_PROCESS)))
            endpoints = {name: [process.address] for name in _IN_PROCESS}
            endpoints["playback"] = [process.server.stream_address]
            gateway.set_endpoints(endpoints)
            workers = [_worker(settings, process.address, run, logs, n) for n in range(settings.workers)]
            for worker in workers:
                await worker.start()
                stack.push_async_callback(worker.stop)
            # Last in, first out: viewers are let go before what serves them.
            stack.push_async_callback(gateway.child.stop)
            follower = asyncio.create_task(_follow_workers(gateway, endpoints, run), name="follow-workers")
            stack.callback(follower.cancel)
            await gateway.ready()
            yield Suite(
                url=gateway.url,
                data_dir=settings.data_dir,
                process=process,
                workers=workers,
                gateway=gateway.child,
                claim_token=_claim_token(run),
            )


def _worker(settings: Settings, services: str, run: Path, logs: Path, number: int) -> Child:
    name = f"encoder-{number + 1}"
    env = {
        "KINO_DATA_DIR": str(settings.data_dir.absolute()),
        "KINO_OBJECTS_DIR": str(settings.objects_folder.absolute()),
        "KINO_KEYS_DIR": str(settings.keys_folder.absolute()),
        "KINO_ENDPOINTS": json.dumps(dict.fromkeys(_IN_PROCESS, services)),
        "KINO_GRPC_PORT": "0",
        "KINO_WORKER_ID": name,
    }
    argv = [sys.executable, "-m", "cli.main", "serve", "encoder", "--address-file", str(run / f"{name}.json")]
    return Child(
        name=name,
        argv=argv,
        folder=Path.cwd(),
        log_path=logs / f"{name}.log",
        env=env,
        niceness=_WORKER_NICENESS,
    )


async def _follow_workers(gateway: Gateway, endpoints: dict[str, list[str]], run: Path) -> None:
    """Tell the gateway where the workers are, also after one was restarted."""
    known: list[str] = []
    while True:
        found = _worker_addresses(run)
        if found != known:
            known = found
            gateway.set_endpoints({**endpoints, "encoder": found})
        await asyncio.sleep(0.5)


def _worker_addresses(run: Path) -> list[str]:
    return sorted(filter(None, map(_address, run.glob("encoder-*.json"))))


def _address(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads(path.read_text())["address"])
    return None


def _claim_token(run: Path) -> str | None:
    with contextlib.suppress(OSError):
        return (run / "claim").read_text().strip() or None
    return None


@contextmanager
def _owned(data_dir: Path) -> Iterator[Path]:
    """The folder `run` of the data folder, held by this process alone."""
    run = data_dir / "run"
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (run / "up.lock").open("a+")
    except OSError as error:
        raise FolderUnusable(str(data_dir), error.strerror or str(error)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(str(data_dir), lock.read().strip() or "?") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for stale in run.glob("encoder-*.json"):
            stale.unlink(missing_ok=True)
        yield run


def _free_port(bind: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError:
            raise PortTaken(str(port), bind) from None
        return int(probe.getsockname()[1])


async def up(settings: Settings, *, announce: Callable[[Suite], None], stop: asyncio.Event) -> None:
    """Run the suite until `stop`; `announce` is told once it can be used."""
    async with suite(settings) as started:
        state = {"pid": os.getpid(), "url": started.url, "claim_token": started.claim_token}
        path = settings.data_dir / "run" / "up.json"
        write_json(path, state)
        path.chmod(0o600)
        try:
            announce(started)
            await stop.wait()
        finally:
            path.unlink(missing_ok=True)
