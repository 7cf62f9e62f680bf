"""The port of media as a stranger's HTTP/2 sees it: windows, turns, broken rules, dead peers."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.streams import StreamServer, connection
from services.runtime.streams.frames import data_frames

PATH = "/kino.test.v1.Films/Play"
MESSAGES = [os.urandom(size) for size in (1, 70_000, 1 << 20, 16_379, 16_384)]
WHOLE = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in MESSAGES)


class Nothing(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await continuation(handler_call_details)


class Server:
    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.inner = StreamServer(
            "127.0.0.1", 0, interceptor=Nothing(), max_calls=10, max_request_bytes=50_000
        )
        handler: Any = grpc.unary_stream_rpc_method_handler(self.play)
        handlers = grpc.method_handlers_generic_handler("kino.test.v1.Films", {"Play": handler})
        self.inner.add_generic_rpc_handlers((handlers,))

    async def play(self, request: bytes, context: Any) -> None:
        self.requests.append(request)
        try:
            for message in MESSAGES:
                await context.write(message)
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.inner.start()
    yield made
    await made.inner.stop(None)


class Client:
    """Does exactly what it is told, and widens no window by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.data: defaultdict[int, bytes] = defaultdict(bytes)
        self.headers: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self.ended: dict[int, object] = {}
        self.gone_away: h2.events.ConnectionTerminated | None = None
        self.pings = 0
        self.largest = 0

    async def call(self, body: bytes = b"\0\0\0\0\3abc", **headers: str) -> int:
        stream = self.h2.get_next_available_stream_id()
        known = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": "x"}
        known |= {"content-type": "application/grpc", "te": "trailers"}
        known |= {key.replace("_", "-"): value for key, value in headers.items()}
        self.h2.send_headers(stream, list(known.items()))
        for at in range(0, len(body), 16_384):
            self.h2.send_data(stream, body[at : at + 16_384])
        self.h2.end_stream(stream)
        await self.flush()
        return stream

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def hear(self) -> bool:
        """One read; False at the connection's end."""
        data = await self.reader.read(1 << 16)
        for event in self.h2.receive_data(data) if data else ():
            match event:
                case h2.events.DataReceived():
                    self.data[event.stream_id] += event.data
                    self.largest = max(self.largest, len(event.data))
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    self.headers[event.stream_id] |= {str(k): str(v) for k, v in event.headers}
                case h2.events.StreamEnded():
                    self.ended[event.stream_id] = "end"
                case h2.events.StreamReset():
                    self.ended[event.stream_id] = event.error_code
                case h2.events.ConnectionTerminated():
                    self.gone_away = event
                case h2.events.PingReceived():
                    self.pings += 1
        return bool(data)

    async def until(self, met: Any) -> None:
        async with asyncio.timeout(20):
            while not met():
                assert await self.hear(), "the connection ended"

    async def until_closed(self) -> None:
        async with asyncio.timeout(20):
            try:
                while await self.hear():
                    pass
            except ConnectionResetError:
                pass

    async def widen(self, count: int, stream: int | None = None) -> None:
        self.h2.increment_flow_control_window(count, stream)
        await self.flush()


@asynccontextmanager
async def client(server: Server, window: int = 1 << 24, largest: int = 16_384) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.inner.port, limit=1 << 24)
    made = Client(reader, writer)
    made.h2.initiate_connection()
    made.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: largest})
    made.h2.increment_flow_control_window(1 << 28)
    await made.flush()
    try:
        yield made
    finally:
        writer.close()


@given(
    st.lists(st.integers(1, 70_000), min_size=1, max_size=6),
    st.sampled_from([16_384, 20_000, 1 << 20]),
    st.lists(st.integers(1, 100_000), max_size=6),
)
def test_frames_hold_the_bytes_of_the_parts_in_order(
    sizes: list[int], largest: int, turns: list[int]
) -> None:
    data = [os.urandom(size) for size in sizes]
    parts = deque(memoryview(each) for each in data)
    found, left = b"", sum(sizes)
    for turn in [*turns, left]:
        size = min(turn, left)
        wire = b"".join(data_frames(3, parts, size, largest))
        left -= size
        while wire:
            length = int.from_bytes(wire[:3], "big")
            assert (0 < length <= largest, wire[3:9]) == (True, b"\0\0\0\0\0\3")
            found += wire[9 : 9 + length]
            wire = wire[9 + length :]
        assert len(found) == sum(sizes) - left
    assert found == b"".join(data)


async def test_messages_come_whole_and_in_order_with_their_status_behind_them(server: Server) -> None:
    async with client(server) as one:
        stream = await one.call()
        await one.until(lambda: stream in one.ended)
        assert one.data[stream] == WHOLE
        assert one.headers[stream][":status"] == "200"
        assert one.headers[stream]["grpc-status"] == "0"
        assert server.requests == [b"abc"]
        assert one.largest == 16_384


async def test_a_peer_that_takes_larger_frames_gets_them(server: Server) -> None:
    async with client(server, largest=1 << 20) as one:
        stream = await one.call()
        await one.until(lambda: stream in one.ended)
        assert one.data[stream] == WHOLE
        assert one.largest > 100_000


async def test_no_byte_is_sent_beyond_a_window(server: Server) -> None:
    async with client(server, window=1000) as one:
        stream = await one.call()
        await one.until(lambda: len(one.data[stream]) == 1000)
        steps = [1, 7, 16_384, 5, 100_000]
        for step in steps:
            await one.widen(step, stream)
            size = len(one.data[stream]) + step
            await one.until(lambda size=size: len(one.data[stream]) == size)
        await one.widen(1 << 24, stream)
        await one.until(lambda: stream in one.ended)
        assert one.data[stream] == WHOLE


async def test_a_window_may_shrink_below_nothing_and_grow_again(server: Server) -> None:
    async with client(server, window=50_000) as one:
        stream = await one.call()
        await one.until(lambda: len(one.data[stream]) == 50_000)
        one.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10_000})
        await one.widen(40_000, stream)  # 40,000 below nothing, and back to it
        one.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10_100})
        await one.flush()
        await one.until(lambda: len(one.data[stream]) == 50_100)
        await one.widen(1 << 24, stream)
        await one.until(lambda: stream in one.ended)
        assert one.data[stream] == WHOLE


async def test_a_stream_that_is_not_read_holds_up_no_other(server: Server) -> None:
    async with client(server, window=20_000) as one:
        stalled, read = await one.call(), await one.call()
        await one.widen(1 << 24, read)
        await one.until(lambda: read in one.ended)
        assert one.data[read] == WHOLE
        assert len(one.data[stalled]) <= 20_000


async def test_what_is_taken_back_ends_at_once(server: Server) -> None:
    async with client(server, window=10) as one:
        stream = await one.call()
        await one.until(lambda: len(one.data[stream]) == 10)
        one.h2.reset_stream(stream, ErrorCodes.CANCEL)
        await one.flush()
        async with asyncio.timeout(20):
            await server.cancelled.wait()
        again = await one.call()
        await one.until(lambda: len(one.data[again]) == 10)


async def test_what_is_taken_back_before_it_is_refused_disturbs_nobody(server: Server) -> None:
    async with client(server) as one:
        known = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": "x"}
        for more in ({"content-type": "text/plain"}, {"content-type": "application/grpc"}):
            stream = one.h2.get_next_available_stream_id()
            one.h2.send_headers(stream, [*known.items(), *more.items()], end_stream=True)
            one.h2.reset_stream(stream)
        good = await one.call()
        await one.until(lambda: good in one.ended)
        assert one.data[good] == WHOLE


async def test_a_client_that_is_gone_ends_its_streams(server: Server) -> None:
    async with client(server, window=10) as one:
        await one.call()
        await one.until(lambda: one.data)
    async with asyncio.timeout(20):
        await server.cancelled.wait()


@pytest.mark.parametrize(
    ("body", "headers", "answer"),
    [
        (b"", {}, {"grpc-status": "13"}),
        (b"\0\0\0\0\4abc", {}, {"grpc-status": "13"}),
        (b"\1\0\0\0\3abc", {"grpc_encoding": "gzip"}, {"grpc-status": "13"}),
        (b"\0" * 60_000, {}, {"grpc-status": "8"}),
        (b"\0\0\0\0\0", {":path": "/kino.test.v1.Films/Nothing"}, {"grpc-status": "12"}),
        (b"\0\0\0\0\0", {"content_type": "text/plain"}, {":status": "415"}),
        (b"\0\0\0\0\0", {"grpc_timeout": "soon"}, {":status": "400"}),
        (b"\0\0\0\0\0", {"key_bin": "?"}, {":status": "400"}),
    ],
)
async def test_what_is_no_call_is_answered_as_such(
    server: Server, body: bytes, headers: dict[str, str], answer: dict[str, str]
) -> None:
    async with client(server) as one:
        stream = await one.call(body, **headers)
        await one.until(lambda: one.headers[stream])
        assert one.headers[stream].items() >= answer.items()
        good = await one.call()
        await one.until(lambda: good in one.ended)
        assert one.data[good] == WHOLE


async def test_more_calls_than_allowed_are_told_so(server: Server) -> None:
    async with client(server, window=10) as one, client(server) as other:
        for _ in range(10):
            await one.call()
        await one.until(lambda: len(one.data) == 10)
        stream = await other.call()
        await other.until(lambda: stream in other.ended)
        assert other.headers[stream]["grpc-status"] == "8"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        os.urandom(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
    ],
    ids=["http/1.1", "noise", "a frame too large", "a window widened by nothing"],
)
async def test_who_breaks_the_protocol_is_left(server: Server, garbage: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.inner.port)
    writer.write(garbage)
    async with asyncio.timeout(20):
        try:
            while await reader.read(4096):
                pass
        except ConnectionResetError:
            pass
    writer.close()
    async with client(server) as one:
        stream = await one.call()
        await one.until(lambda: stream in one.ended)


async def test_who_takes_back_stream_after_stream_is_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_MAX_RESETS", 20)
    async with client(server, window=10) as one:
        for _ in range(30):
            stream = one.h2.get_next_available_stream_id()
            one.h2.send_headers(
                stream, [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "x")]
            )
            one.h2.reset_stream(stream)
        await one.flush()
        await one.until_closed()


async def test_a_silent_peer_is_asked_and_given_up_when_it_does_not_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PING_AFTER_S", 0.0)
    async with client(server, window=10) as one:
        await one.call()
        await one.until(lambda: one.data)
        looked = next(iter(server.inner._connections))
        looked.look()
        await one.until(lambda: one.pings == 1)
        looked.look()
        await one.flush()  # the answer
        await one.call()
        await one.until(lambda: len(one.data) == 2)
        assert not server.cancelled.is_set()
        monkeypatch.setattr(connection, "PING_TIMEOUT_S", 0.0)
        looked.look()
        looked.look()
        await one.until_closed()
        async with asyncio.timeout(20):
            await server.cancelled.wait()


async def test_at_the_end_streams_finish_and_new_ones_are_sent_elsewhere(server: Server) -> None:
    server.go_on.clear()
    async with client(server) as one:
        stream = await one.call()
        await one.until(lambda: one.data)
        stopping = asyncio.create_task(server.inner.stop(20))
        await one.until(lambda: one.gone_away)
        assert one.gone_away is not None
        assert (one.gone_away.error_code, one.gone_away.last_stream_id) == (0, stream)
        server.go_on.set()
        one.h2 = _going_on(one.h2)
        await one.until(lambda: stream in one.ended)
        assert one.data[stream] == WHOLE
        await stopping


def _going_on(ended: h2.connection.H2Connection) -> h2.connection.H2Connection:
    """`h2` takes a GOAWAY for the end of everything; the standard lets earlier streams finish."""
    ended.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
    return ended
