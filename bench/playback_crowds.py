"""Many viewers of a process: at the speed of the film, taking nothing; and two processes instead of one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from bench.playback_field import Contestant, Field, cache
from bench.report import Row
from bench.servers import Reader, Server, built_peers

_MIB, _GIB = 1 << 20, 1 << 30
#: Viewers, bytes per second of each, how long they watch.
VIEWERS, RATE_BYTES, WATCH_S = 2000, 5_000_000 / 8, 25.0
STALLED = 500
#: Streams that are read as fast as they come, each on its own connection.
_FAST_STREAMS = 16
_FIRSTS = 300


async def viewers(field: Field, rounds: int) -> list[Row]:
    """Thousands of viewers at the speed of the film, on one process."""
    requests = (await field.contestants["kino"].streams(VIEWERS))["requests"]
    spent_s, memory_kib, result = await _watched(field, field.kino, requests)
    # The same requests: it looks into none.
    go_spent_s, go_kib, go_result = await _watched(field, field.go, requests)
    per_gib, go_per_gib = spent_s / (result["bytes"] / _GIB), go_spent_s / (go_result["bytes"] / _GIB)
    name = f"{VIEWERS} viewers"
    starts, go_starts = (quantiles(one["firsts_ms"], n=100)[98] for one in (result, go_result))
    return [
        Row(
            name=f"{name}: stalled",
            value=float(result["stalled"]),
            unit="viewers",
            peer=f"go {go_result['stalled']}",
            goal="<=0",
        ),
        Row(
            name=f"{name}: failed",
            value=float(result["failed"]),
            unit="viewers",
            peer=f"go {go_result['failed']}",
            goal="<=0",
        ),
        Row(name=f"{name}: first byte p99", value=starts, unit="ms", peer=f"go {go_starts:.0f}"),
        Row(
            name=f"{name}: memory of each",
            value=memory_kib,
            unit="KiB",
            peer=f"go {go_kib:.0f}",
            goal="<=300",
        ),
        Row(
            name=f"{name}: CPU",
            value=per_gib,
            unit="s/GiB",
            peer=f"go {go_per_gib:.3f}",
            ratio=per_gib / go_per_gib,
            goal="<=1.2",
        ),
    ]


async def _watched(
    field: Field, server: Server, requests: Sequence[str]
) -> tuple[float, float, dict[str, Any]]:
    """CPU-seconds, KiB of memory of each viewer, and what the reader tells."""
    memory, before = server.memory_bytes, server.cpu_s
    reading = asyncio.create_task(
        field.reader.read(
            protocol="grpc",
            address=server.address,
            requests=requests,
            may_fail=True,
            streams=VIEWERS,
            connections=50,
            stream_window=256 << 10,
            rate=RATE_BYTES,
            seconds=WATCH_S,
        )
    )
    await asyncio.wait({reading}, timeout=WATCH_S * 0.8)
    grown = server.memory_bytes - memory
    result = await reading
    return server.cpu_s - before, grown / VIEWERS / 1024, result


async def stalled(field: Field, rounds: int) -> list[Row]:
    """Readers that take a little and then nothing, and what that does to the others."""
    contestant = field.contestants["kino"]
    before = await _first_bytes(field, contestant)
    plan = await contestant.streams(STALLED)
    memory = field.kino.memory_bytes
    other = await Reader.run(built_peers(cache()))
    try:
        holding = asyncio.create_task(
            other.read(**plan, streams=STALLED, connections=20, stream_window=256 << 10, stall=2, seconds=8)
        )
        await asyncio.wait({holding}, timeout=3)
        grown = field.kino.memory_bytes - memory
        beside = await _first_bytes(field, contestant)
        await holding
    finally:
        other.stop()
    return [
        Row(
            name=f"{STALLED} stalled readers: memory of each",
            value=grown / STALLED / 1024,
            unit="KiB",
        ),
        Row(
            name=f"{STALLED} stalled readers: first byte p50 of others",
            value=median(beside),
            unit="ms",
            peer=f"without them {median(before):.2f}",
            ratio=median(beside) / median(before),
        ),
    ]


async def _first_bytes(field: Field, contestant: Contestant) -> list[float]:
    plan = await contestant.streams(1)
    result = await field.reader.read(**plan, streams=_FIRSTS, connections=1, first=True)
    waits_ms: list[float] = result["firsts_ms"]
    return waits_ms


async def processes(field: Field, rounds: int) -> list[Row]:
    """A second process behind the same gateway: how much more it carries on this machine."""
    one, two = field.contestants["kino, envoy"], field.contestants["two kino, envoy"]
    costs: dict[str, list[float]] = {one.name: [], two.name: []}
    for _ in range(rounds):
        for contestant in (one, two):
            before = contestant.cpu_s
            plan = await contestant.streams(_FAST_STREAMS)
            result = await field.reader.read(**plan, streams=_FAST_STREAMS)
            contestant.rates.append(result["bytes"] / result["seconds"])
            costs[contestant.name].append((contestant.cpu_s - before) / (result["bytes"] / _GIB))
    rate, rate_of_one = median(two.rates), median(one.rates)
    cost, cost_of_one = median(costs[two.name]), median(costs[one.name])
    return [
        Row(
            name="two processes, envoy: rate",
            value=rate / _MIB,
            unit="MiB/s",
            peer=f"one {rate_of_one / _MIB:.0f}",
            ratio=rate / rate_of_one,
        ),
        Row(
            name="two processes, envoy: CPU per GiB",
            value=cost,
            unit="s/GiB",
            peer=f"one {cost_of_one:.3f}",
            ratio=cost / cost_of_one,
        ),
    ]
