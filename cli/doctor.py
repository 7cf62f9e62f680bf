"""What `kino doctor` looks at: each check is a sentence, and where something is wrong it says what to do."""

from __future__ import annotations

import asyncio
import ctypes
import email.utils
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cli.doctor_engines import examine_engines
from cli.findings import Finding, ok, warning, wrong
from cli.gateway import SERVICES, GatewayMissing, admin_report, envoy_program, packaged
from services.media import sandbox
from services.media.errors import SandboxUnavailable
from services.runtime.settings import GIB, Settings

_ENCODERS = ("libx264", "libsvtav1", "aac", "libopus")
_LEAST_FREE_BYTES = 5 * GIB
_MOST_CLOCK_ERROR_S = 60.0
_TIME_ERROR = 5


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything `kino up` needs on this machine, and at the Kino that runs there, if one does."""
    running = _state_of(settings.data_dir)
    findings = [
        _data_folder(settings.data_dir),
        _port(settings, running),
        await asyncio.to_thread(_ffmpeg),
        await _sandbox(),
        await asyncio.to_thread(_envoy),
        _page(),
        _clock(settings.data_dir),
        *await examine_engines(settings),
    ]
    if running:
        findings += await asyncio.to_thread(_gateway, str(running["url"]))
        findings += await asyncio.to_thread(_services, settings.data_dir / "run" / "gateway")
    return findings


def _state_of(data_dir: Path) -> Mapping[str, Any] | None:
    """What the running `kino up` wrote about itself; None when none runs."""
    try:
        state: dict[str, Any] = json.loads((data_dir / "run" / "up.json").read_text())
        os.kill(int(state["pid"]), 0)
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError):
        return None
    return state


def _data_folder(folder: Path) -> Finding:
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        return wrong(
            "data folder", f"{existing} can't be written: set KINO_DATA_DIR to a folder that can be."
        )
    free_bytes = shutil.disk_usage(existing).free
    free = f"{free_bytes / GIB:.0f} GiB free"
    if free_bytes < _LEAST_FREE_BYTES:
        return warning("data folder", f"{folder} has only {free}; free some, or choose another disk.")
    return ok("data folder", f"{folder} can be written, {free}.")


def _port(settings: Settings, running: Mapping[str, Any] | None) -> Finding:
    if running:
        return ok("port", f"Kino runs on {running['url']} (process {running['pid']}).")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.bind, settings.gateway_port))
        except OSError as error:
            where = f"{settings.bind}:{settings.gateway_port}"
            return wrong(
                "port",
                f"{where} can't be used ({error.strerror}): stop what uses it or set KINO_GATEWAY_PORT.",
            )
    return ok("port", f"{settings.bind}:{settings.gateway_port} is free.")


def _ffmpeg() -> Finding:
    try:
        program = sandbox.ffmpeg()
        said = subprocess.run(
            [program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        version = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return wrong("ffmpeg", f"FFmpeg does not run ({error}): run `make setup`.")
    known = {line.split()[1] for line in said.splitlines() if len(line.split()) > 1}
    missing = [name for name in _ENCODERS if name not in known]
    if missing:
        return wrong(
            "ffmpeg", f"{program} lacks {', '.join(missing)}: run `make setup` for the one Kino pins."
        )
    return ok("ffmpeg", f"{' '.join(version.stdout.split()[:3])} with {', '.join(_ENCODERS)}.")


async def _sandbox() -> Finding:
    try:
        able = await sandbox.capabilities()
    except SandboxUnavailable as error:
        return wrong("sandbox", error.message)
    means = [
        *(["namespaces"] if able.namespace else []),
        *([f"Landlock {able.landlock_abi}"] if able.landlock_abi else []),
        *(["seccomp"] if able.seccomp else []),
    ]
    held = ", ".join(means) or "nothing"
    if not able.network_refused:
        return wrong(
            "sandbox",
            f"Opening an upload could reach the network ({held}): allow user namespaces or seccomp.",
        )
    if not able.files_refused:
        return wrong(
            "sandbox",
            f"Opening an upload could read other files ({held}): use a kernel with Landlock (5.13).",
        )
    return ok("sandbox", f"Uploads are opened without network and without other files ({held}).")


def _envoy() -> Finding:
    try:
        program = envoy_program()
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except GatewayMissing as error:
        return wrong("gateway", error.message)
    except (OSError, subprocess.SubprocessError) as error:
        return wrong("gateway", f"Envoy does not run ({error}): run `make setup`.")
    version = said.stdout.split("version:")[-1].split("/")
    return ok("gateway", f"Envoy {version[1] if len(version) > 1 else 'of unknown version'} is there.")


def _page() -> Finding:
    if packaged("services/page/dist/index.html").exists():
        return ok("page", "The page is built.")
    return wrong("page", "The page is not built: run `make web`.")


def _clock(data_dir: Path) -> Finding:
    """Tokens, leases and bills depend on it. Whether it is kept right, the kernel knows (adjtimex(2))."""
    now = datetime.now(UTC)
    newest = max((path.stat().st_mtime for path in data_dir.glob("*/*") if path.is_file()), default=0.0)
    ahead_s = newest - now.timestamp()
    if ahead_s > _MOST_CLOCK_ERROR_S:
        return wrong(
            "clock",
            f"The clock is {ahead_s:.0f} s behind files Kino wrote earlier: set it, and keep it by NTP.",
        )
    # The structure is 208 bytes on 64-bit Linux; all zero asks only.
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256)) == _TIME_ERROR:
        return warning("clock", f"It is {now:%H:%M:%S} UTC, but no time service keeps the clock right.")
    return ok("clock", f"It is {now:%H:%M:%S} UTC, kept by a time service.")


def _gateway(url: str) -> list[Finding]:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            date = answer.headers.get("date")
    except OSError as error:
        return [wrong("running", f"{url} does not answer ({error}): look at `logs/gateway.log`.")]
    findings = [ok("running", f"{url} answers.")]
    if date:
        off_s = abs((datetime.now(UTC) - email.utils.parsedate_to_datetime(date)).total_seconds())
        if off_s > _MOST_CLOCK_ERROR_S:
            findings.append(wrong("running", f"The gateway's clock is {off_s:.0f} s away from ours."))
    return findings


def _services(gateway: Path) -> list[Finding]:
    """Each service's health as the gateway sees it, by its own checks."""
    try:
        clusters = admin_report(gateway)
    except (OSError, ValueError, KeyError) as error:
        return [wrong("services", f"The gateway's own report can't be read ({error}): start Kino again.")]
    hosts = {cluster["name"]: cluster.get("host_statuses", []) for cluster in clusters}
    return [_service(name, hosts.get(name, [])) for name in SERVICES]


def _service(name: str, hosts: list[dict[str, Any]]) -> Finding:
    healthy = [host for host in hosts if _healthy(host.get("health_status", {}))]
    if healthy:
        nodes = "one node" if len(hosts) == 1 else f"{len(healthy)} of {len(hosts)} nodes"
        state: Literal["ok", "warning"] = "ok" if len(healthy) == len(hosts) else "warning"
        return Finding(check=f"{name} service", state=state, sentence=f"Serving on {nodes}.")
    log = "the workers' logs" if name == "encoder" else "what `kino up` printed"
    return wrong(f"{name} service", f"Not serving: look at {log}, then start Kino again.")


def _healthy(status: dict[str, Any]) -> bool:
    failed = ("failed_active_health_check", "failed_outlier_check", "pending_active_hc")
    return status.get("eds_health_status") == "HEALTHY" and not any(status.get(name) for name in failed)
