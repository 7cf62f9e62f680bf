"""What a byte costs and how soon it comes: Kino's `Play` against what engineers would deploy instead.

All servers run on loopback in a network of their own, serve the same bytes, and are read by the same program,
one after the other in every round. Kino's `Play` is whole: token, lease in SQL, header, accounting.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.network import enter_own_network
from bench.playback_click import click
from bench.playback_crowds import processes, stalled, viewers
from bench.playback_field import TITLE, Contestant, Field, running
from bench.playback_leaving import leaving
from bench.report import Report, Row, conditions
from services.runtime.claims import temporary
from services.runtime.logs import configure_logs

ROUNDS = 5
GIB = 1 << 30
#: The kernel counts processor time in hundredths of a second: 0.005 s/GiB of a sample.
_SAMPLE_BYTES = 2 * GIB
#: First bytes of one contestant in a round; fewer where each reads segments from the origin.
_FIRSTS, _COLD_FIRSTS = 300, 60
#: Between two of them: what a server sends ahead to one reader is not what the next one waits for.
_REST_MS = 5
_COSTS = (
    ("kino", "nginx h2c", "<=0.55"),
    ("kino", "nginx h2c tuned", "<=1.0"),
    ("kino", "nginx h1 sendfile", "<=1.8"),
    ("kino", "go", "<=0.85"),
    ("kino, envoy", "go, envoy", "<=0.9"),
    ("kino, tls", "nginx h2, tls", "<=0.6"),
)
_ALONE: Mapping[str, Any] = {"connections": 1, "first": True, "rest_ms": _REST_MS}
#: Whose first byte is compared with whose.
_FIRST_BYTES = (
    ("kino", ("go", "nginx h2c")),
    ("kino, envoy", ("go, envoy",)),
    ("kino, tls", ("nginx h2, tls",)),
    ("kino, cold", ("kino",)),
    ("kino, cold, envoy", ("kino, envoy",)),
    ("kino, cold, s3", ("kino, cold",)),
    ("kino, cold, s3, envoy", ("kino, cold, envoy",)),
)
#: A median through Envoy, on an idle machine.
_ENVOY_GOAL = "<=1"


async def _costs(field: Field, rounds: int) -> list[Row]:
    """Processor time per GiB of streams read as fast as they come."""
    names = dict.fromkeys(name for ours, theirs, _ in _COSTS for name in (ours, theirs))
    for _ in range(rounds):
        for name in names:
            await _cost(field, field.contestants[name])
    return [
        Row(
            name=f"CPU per GiB: {ours}",
            value=field.contestants[ours].cost,
            unit="s/GiB",
            peer=f"{theirs} {field.contestants[theirs].cost:.3f}",
            ratio=field.contestants[ours].cost / field.contestants[theirs].cost,
            goal=goal,
        )
        for ours, theirs, goal in _COSTS
    ]


async def _cost(field: Field, contestant: Contestant) -> None:
    before, read_bytes = contestant.cpu_s, 0
    while read_bytes < _SAMPLE_BYTES:
        read_bytes += (await field.reader.read(**await contestant.streams(2), streams=2))["bytes"]
    contestant.cpu_s_per_gib.append((contestant.cpu_s - before) / (read_bytes / GIB))


async def _firsts(field: Field, rounds: int) -> list[Row]:
    """From a request to its first media byte, on a connection that is there."""
    found = {name: list[float]() for ours, peers in _FIRST_BYTES for name in (ours, *peers)}
    for _ in range(rounds):
        for name, waits_ms in found.items():
            plan = await field.contestants[name].streams(1)
            plan["requests"] = plan["requests"][:1]
            count = _COLD_FIRSTS if "cold" in name else _FIRSTS
            result = await field.reader.read(**plan, streams=count, **_ALONE)
            waits_ms += result["firsts_ms"]
    return _first_rows(found)


def _first_rows(found: Mapping[str, Sequence[float]]) -> list[Row]:
    rows = []
    for part, percent in (("p50", 50), ("p99", 99)):
        ms = {name: quantiles(waits, n=100)[percent - 1] for name, waits in found.items()}
        rows.append(
            Row(
                name=f"first byte {part} in all: kino, envoy",
                value=ms["kino, envoy"],
                unit="ms",
                goal=_ENVOY_GOAL if part == "p50" else None,
            )
        )
        for ours, peers in _FIRST_BYTES:
            rows += [
                Row(
                    name=f"first byte {part}: {ours}",
                    value=ms[ours],
                    unit="ms",
                    peer=f"{peer} {ms[peer]:.2f}",
                    ratio=ms[ours] / ms[peer],
                )
                for peer in peers
            ]
    return rows


_IN_FIELD: Mapping[str, Callable[[Field, int], Awaitable[list[Row]]]] = {
    "cost": _costs,
    "firsts": _firsts,
    "viewers": viewers,
    "stalled": stalled,
    "leaving": leaving,
    "processes": processes,
}
PARTS = (*_IN_FIELD, "click")


def run(rounds: int = ROUNDS, *, parts: Sequence[str] = ()) -> Report:
    """Start everything once, then measure round by round; only some `parts`, all in one configuration."""
    congestion = enter_own_network()
    configure_logs(level="error", style="console")
    stated = conditions(
        rounds=rounds,
        congestion=congestion,
        title=f"{TITLE.segment_count} segments of {TITLE.video_bytes + TITLE.audio_bytes} bytes, warm",
        message_bytes="65536 first, 262144 until 1 MiB is sent, then 2097152, or 524288 to slow readers",
        reader="Go, two streams on two connections, HTTP/2 stream windows of 4 MiB",
        firsts=f"one request at a time, {_REST_MS} ms after the one before",
        gateway="envoy.yaml as shipped, one worker a core",
        processes="playback 1, nginx worker 1, Go as it schedules itself",
        click="Chromium, page at rest in a fresh profile, 30 s of 1280x720, both begin with 720 lines",
    )
    wanted = parts or PARTS
    rows, loads = list[Row](), dict[str, object]()
    with temporary("bench") as name:
        if in_field := [part for part in wanted if part in _IN_FIELD]:
            rows, loads = asyncio.run(_measured(Path(name), rounds, in_field))
        if "click" in wanted:
            rows += click(Path(name) / "click", rounds)
            loads["click_load_after"] = round(os.getloadavg()[0], 2)
    return Report(bench="playback", rows=rows, conditions={**stated, **loads})


async def _measured(folder: Path, rounds: int, parts: Sequence[str]) -> tuple[list[Row], dict[str, object]]:
    rows, loads = list[Row](), dict[str, object]()
    async with running(folder) as field:
        for part in parts:
            rows += await _IN_FIELD[part](field, rounds)
            loads[f"{part}_load_after"] = round(os.getloadavg()[0], 2)
            print(f"{part}: done", file=sys.stderr)
    return rows, loads
