"""How soon a stream that its viewer leaves is over at the server.

A lease may have so many streams open and no more, so a full one tells it from outside: from the moment when a
stream is cancelled until another one may begin in its place, which is longer than the cancellation.
"""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import AsyncExitStack
from statistics import median, quantiles
from typing import Any

import grpc.aio

from bench.playback_field import Field
from bench.report import Row
from services.playback.readers import MAX_PER_LEASE

_TIMES = 40
_METHOD = "/kino.playback.v1.PlaybackService/Play"
_OPTIONS = (("grpc.max_receive_message_length", 8 << 20),)


async def leaving(field: Field, rounds: int) -> list[Row]:
    """From cancelling a stream that has sent as much as its reader takes to the start of the next one."""
    plan = await field.contestants["kino"].streams(1)
    request = base64.b64decode(plan["requests"][0])
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(field.kino.address, options=_OPTIONS)
        )
        play: Any = channel.unary_stream(_METHOD)
        open_calls = [await _begun(play, request) for _ in range(MAX_PER_LEASE)]
        waits_ms = []
        for turn in range(_TIMES * rounds):
            began_s = time.perf_counter()
            open_calls[turn % MAX_PER_LEASE].cancel()
            open_calls[turn % MAX_PER_LEASE] = await _begun(play, request)
            waits_ms.append((time.perf_counter() - began_s) * 1000)
        for call in open_calls:
            call.cancel()
    worst = quantiles(waits_ms, n=100)[98]
    return [
        Row(name="cancelled until another may begin: p50", value=median(waits_ms), unit="ms"),
        Row(name="cancelled until another may begin: p99", value=worst, unit="ms", goal="<=100"),
    ]


async def _begun(play: Any, request: bytes) -> Any:
    """A stream whose first message is here; asks again while the lease has no room."""
    while True:
        call = play(request)
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0)
        else:
            return call
