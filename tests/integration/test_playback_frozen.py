"""A program that freezes holds its connection open and takes nothing: the server must not hold its stream."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.playback.bootstrap import build as build_playback
from services.runtime import metrics
from services.runtime.app import Running
from services.runtime.testing import bearer, channel_of, serving, settings_in, user_token
from tests.support.long_title import LongTitle
from tests.support.published import Film
from tests.support.watching import VIEWER, Plans, accounts, start

#: Far more than what HTTP/2 and TCP hold between two programs.
LONG = LongTitle(segment_count=8, video_bytes=8 << 20, audio_bytes=64 << 10)
#: The pings' 30 and 10 s, and patience with a busy machine.
REAPED_WITHIN_S = 180.0
#: Takes one message of a stream, says so, and takes no more.
VIEWER_PROGRAM = """
import sys, grpc
from kino.playback.v1.playback_pb2 import PlayRequest
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
address, token = sys.argv[1:]
request = PlayRequest(lease_token=token)
request.offset.FromNanoseconds(0)
stream = PlaybackServiceStub(grpc.insecure_channel(address)).Play(request)
next(stream)
print("watching", flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(
        tmp_path,
        settings=settings_in(tmp_path, lease_ttl_s=3600),  # the rule of leases is not what ends them here
        catalog=build_catalog,
        history=build_history,
        billing=Plans(limits={VIEWER: 5}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


def streams() -> float:
    labels = {"rpc_service": "kino.playback.v1.PlaybackService", "rpc_method": "Play"}
    return metrics.REGISTRY.get_sample_value("rpc_server_active_calls", labels) or 0


async def until(condition: Any) -> None:
    async with asyncio.timeout(REAPED_WITHIN_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.1)


async def test_a_frozen_viewer_is_dropped_and_one_who_only_pauses_is_not(
    process: Running, film: Film
) -> None:
    title = await LONG.publish(process, film)
    metadata = bearer(user_token(process, VIEWER, "viewer"))
    async with channel_of(process) as channel:
        stub = PlaybackServiceStub(channel)
        tokens = [
            (await start(stub, title, metadata=metadata, device=device)).lease.token
            for device in ("frozen", "paused")
        ]
        frozen = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            VIEWER_PROGRAM,
            process.address,
            tokens[0],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert frozen.stdout is not None
            assert await frozen.stdout.readline() == b"watching\n"
            request = pb.PlayRequest(lease_token=tokens[1])
            request.offset.FromNanoseconds(0)
            paused: Any = stub.Play(request)
            await paused.read()
            await until(lambda: streams() == 2)
            os.kill(frozen.pid, signal.SIGSTOP)
            await until(lambda: streams() == 1)
            received = 0
            while (message := await paused.read()) is not grpc.aio.EOF:
                received += len(message.media.data)
            assert received == LONG.segment_count * (LONG.video_bytes + LONG.audio_bytes)
        finally:
            frozen.kill()
            await frozen.wait()
