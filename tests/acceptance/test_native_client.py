"""A client that knows nothing but the contracts: Node, Connect's gRPC transport, stubs from gen/web."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, Protocol, cast

import av
import grpc
import numpy as np
import pytest

from kino.playback.v1 import edges_pb2
from kino.playback.v1.edges_pb2_grpc import EdgeRegistryServiceStub
from services.media.testfilm import FilmSpec, read_frame_number
from services.runtime.auth import ServiceTokens
from services.runtime.keys import open_keys
from services.runtime.testing import bearer

pytestmark = pytest.mark.node

CLIENT = Path(__file__).parent / "native" / "client.js"
SECOND_NS = 1_000_000_000


class Suite(Protocol):
    """A running suite."""

    data_dir: Path


class Stack(Protocol):
    """What the `stack` fixture gives: a running suite, a viewer who may watch, a title made from `film`."""

    suite: Suite
    gateway: str
    services: str
    email: str
    password: str
    title: str
    film: FilmSpec


def play(stack: Stack, out: Path, **wish: Any) -> dict[str, Any]:
    account = {"email": stack.email, "password": stack.password, "title": stack.title}
    asked = {"gateway": stack.gateway, **account, "codec": "H264", "out": str(out), **wish}
    command = ["node", str(CLIENT), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def frame_numbers(film: Path) -> list[int | None]:
    # Edit lists are ignored, so that the decoder trims nothing by itself.
    with av.open(str(film), options={"ignore_editlist": "1"}) as container:
        grays = (frame.to_ndarray(format="gray").astype(np.uint8) for frame in container.decode(video=0))
        return [read_frame_number(gray) for gray in grays]


@pytest.mark.parametrize("codec", ["H264", "AV1"])
@pytest.mark.parametrize("offset_ms", [0, 1, 33_400, 57_991])
def test_the_header_leads_to_the_frame_on_show_at_the_offset(
    stack: Stack, tmp_path: Path, codec: str, offset_ms: int
) -> None:
    out, timeline = tmp_path / "stream.mp4", stack.film.timeline
    report = play(stack, out, codec=codec, offset_ms=offset_ms, segment_count=2)
    numbers = frame_numbers(out)
    first, wanted = numbers[0], int(offset_ms * stack.film.fps / 1000)
    [header] = report["headers"]

    assert first is not None
    assert numbers == list(range(first, first + len(numbers)))
    assert numbers[header["trim_frame_count"]] == header["frame_number"] == wanted
    assert (header["media_start_ns"], header["offset_ns"]) == (timeline.ns(first), timeline.ns(wanted))
    assert header["trim_ns"] == header["offset_ns"] - header["media_start_ns"]
    assert header["trim_ns"] <= 2 * SECOND_NS
    assert header["segment_start_ns"] <= header["media_start_ns"]
    assert header["video"].startswith(codec.lower())


def test_every_sample_sent_is_a_frame_decoded_and_the_stream_says_where_to_go_on(
    stack: Stack, tmp_path: Path
) -> None:
    out, timeline = tmp_path / "stream.mp4", stack.film.timeline
    report = play(stack, out, offset_ms=20_000, segment_count=2)
    numbers = frame_numbers(out)

    assert numbers[-1] is not None
    assert report["video"]["samples"] == len(numbers)
    assert report["audio"]["samples"] > 0
    assert report["video"]["bytes"] + report["audio"]["bytes"] < out.stat().st_size
    assert report["end"] == {
        "reason": "END_OF_WINDOW",
        "next_offset_ns": timeline.ns(numbers[-1] + 1),
    }


def test_the_last_frame_of_the_film_ends_the_stream(stack: Stack, tmp_path: Path) -> None:
    out, film = tmp_path / "stream.mp4", stack.film
    report = play(stack, out, offset_ms=int(film.seconds * 1000) - 5_000)

    assert frame_numbers(out)[-1] == film.timeline.frame_count - 1
    assert report["end"]["reason"] == "END_OF_TITLE"


@pytest.mark.parametrize(
    ("wish", "code", "reason"),
    [
        ({"offset_ms": -1}, "InvalidArgument", "VALIDATION_FAILED"),
        ({"offset_ms": 3_600_000}, "OutOfRange", "OFFSET_OUT_OF_RANGE"),
        ({"title": "titles/there-is-no-such-title"}, "NotFound", "TITLE_NOT_FOUND"),
        ({"password": "not the password"}, "Unauthenticated", "WRONG_CREDENTIALS"),
    ],
    ids=["negative offset", "offset past the end", "unknown title", "wrong password"],
)
def test_what_cannot_be_played_is_answered_with_its_code_and_reason(
    stack: Stack, tmp_path: Path, wish: dict[str, Any], code: str, reason: str
) -> None:
    error = play(stack, tmp_path / "stream.mp4", **wish)["error"]

    assert (error["code"], error["reason"]) == (code, reason)


@contextmanager
def cutting_edge(stack: Stack, cut_bytes: int) -> Iterator[str]:
    """An edge's address where each connection breaks off after so many bytes; playback knows of it."""
    left = Event()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(16) as pool:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        pool.submit(_relay_all, server, stack.services, cut_bytes, pool)
        _report(stack, address, leaving=False)
        beats = pool.submit(_report_until, left, stack, address)
        try:
            yield address
        finally:
            left.set()
            beats.result()
            _report(stack, address, leaving=True)
            server.shutdown(socket.SHUT_RDWR)


def _report_until(left: Event, stack: Stack, address: str) -> None:
    while not left.wait(1):
        _report(stack, address, leaving=False)


def _report(stack: Stack, address: str, *, leaving: bool) -> None:
    tokens = ServiceTokens(open_keys(stack.suite.data_dir / "keys").internal)
    request = edges_pb2.ReportEdgeRequest(leaving=leaving)
    request.edge.address, request.edge.stream_capacity = address, 1000
    with grpc.insecure_channel(stack.services) as channel:
        stub: Any = EdgeRegistryServiceStub(cast(Any, channel))
        stub.ReportEdge(request, timeout=30, metadata=bearer(tokens.token("playback")))


def _relay_all(server: socket.socket, services: str, cut_bytes: int, pool: ThreadPoolExecutor) -> None:
    host, _, port = services.partition(":")
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            node = socket.create_connection((host, int(port)))
            pool.submit(_relay, client, node, 1 << 62)
            pool.submit(_relay, node, client, cut_bytes)


def _relay(source: socket.socket, sink: socket.socket, most_bytes: int) -> None:
    with source, sink:
        with suppress(OSError):
            while most_bytes > 0 and (data := source.recv(min(most_bytes, 65_536))):
                sink.sendall(data)
                most_bytes -= len(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("cut_bytes", [0, 150_000, 600_001])
def test_a_stream_that_its_edge_breaks_off_goes_on_at_the_gateway_with_the_next_byte(
    stack: Stack, tmp_path: Path, cut_bytes: int
) -> None:
    wish = {"offset_ms": 20_000, "segment_count": 4}
    whole = play(stack, tmp_path / "whole.mp4", **wish)
    with cutting_edge(stack, cut_bytes) as address:
        broken = play(stack, tmp_path / "broken.mp4", **wish)
    assert (whole["edges"], broken["edges"]) == ([], [address])
    assert (tmp_path / "whole.mp4").stat().st_size > cut_bytes
    assert (tmp_path / "broken.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert (broken["headers"], broken["end"]) == (whole["headers"], whole["end"])
