"""One HTTP/2 connection: `h2` keeps its state and headers, media goes past it straight to the socket."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import h2.connection
import h2.events
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

from services.runtime.streams.frames import MAX_WINDOW, FrameTooLarge, Splitter, data_frames, go_away

Headers: TypeAlias = Sequence[tuple[str, str]]

#: What one call to the kernel is offered.
_BATCH_BYTES = 1 << 20
#: What one of several streams sends before the next one's turn.
_TURN_BYTES = 64 << 10
#: Buffers that sendmsg(2) takes at once (IOV_MAX).
_MAX_BUFFERS = 1024
_READ_BYTES = 64 << 10
#: Answers to a peer's own frames that wait because it reads nothing.
_MAX_CONTROL_BYTES = 1 << 20
#: A connection that says nothing is asked after so long, and given up when it doesn't answer.
PING_AFTER_S, PING_TIMEOUT_S = 30.0, 10.0
#: Streams taken back by a peer between two looks (every few seconds): more is an attack (CVE-2023-44487).
_MAX_RESETS = 2000


class _Http2(h2.connection.H2Connection):
    """Counts its streams now and then instead of all of them for each new one: Envoy brings thousands."""

    _at_most, _recount_at = 0, 64

    @property
    def open_inbound_streams(self) -> int:
        """At most so many are open. `h2` asks for each new one, and forgets closed ones as it counts."""
        count = self._at_most
        if count >= min(self._recount_at, self.local_settings.max_concurrent_streams):
            count = super().open_inbound_streams
            self._recount_at = 2 * count + 64
        self._at_most = count + 1
        return count


class Outgoing:
    """What one stream has yet to send."""

    def __init__(self, stream_id: int, window: int) -> None:
        self.stream_id = stream_id
        #: Bytes that the peer takes for this stream at the moment; negative after it took some back.
        self.window = window
        self.parts = deque[memoryview]()
        self.size_bytes = 0
        #: Sent after the parts; the end of the stream.
        self.trailers: Headers | None = None
        #: Whether it waits for its turn.
        self.queued = False
        #: Whether bytes of it are not with the kernel yet, and who waits for that.
        self.busy = False
        self.taken: asyncio.Future[None] | None = None

    def done(self) -> None:
        """All its bytes are with the kernel."""
        self.busy = False
        if self.taken is not None and not self.taken.done():
            self.taken.set_result(None)


class Connection:
    """Reads requests, hands them to `asked`, sends what streams write, in turns."""

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        *,
        max_streams: int,
        asked: Callable[[Connection, int, Headers, bytes | None], None],
        reset: Callable[[Connection, int], None],
        lost: Callable[[Connection], None],
        max_request_bytes: int,
    ) -> None:
        """`peer` as gRPC names it: `ipv4:127.0.0.1:50000`.

        `asked` is given a stream's request, None when it is larger than allowed; `reset` that the peer takes
        a stream back, `lost` once that the connection is gone.
        """
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self.peer = peer
        self._asked, self._reset, self._lost = asked, reset, lost
        self._max_request_bytes = max_request_bytes
        self._h2 = _Http2(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: h2.connection.H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
            },
        )
        self._splitter = Splitter()
        self._requests: dict[int, tuple[Headers, bytearray]] = {}
        self._out: dict[int, Outgoing] = {}
        self._turns = deque[Outgoing]()
        self._window = self._h2.outbound_flow_control_window
        self._control = bytearray()
        self._unsent: list[memoryview | bytes] = []
        #: Streams whose last bytes are in `_unsent`.
        self._closing: list[Outgoing] = []
        self._writing = False
        self._open = True
        self._leaving = False
        self._heard_s = self._loop.time()
        self._pinged_s: float | None = None
        self._resets = 0
        self._h2.initiate_connection()
        self._loop.add_reader(sock, self._readable)
        self._flush_control()

    def send_headers(self, stream_id: int, headers: Headers) -> None:
        """Begin the answer; once for a stream."""
        if stream_id in self._out:
            self._head(stream_id, headers)
            self._flush_control()

    async def send(self, stream_id: int, parts: Sequence[bytes | memoryview]) -> None:
        """Send these bytes; returns when the kernel has them. A cancelled one leaves the rest to be sent."""
        out = self._out.get(stream_id)
        if out is None:
            raise asyncio.CancelledError  # taken back; the task hears of it in a moment
        for part in parts:
            out.parts.append(memoryview(part))
            out.size_bytes += len(part)
        out.busy = True
        self._queue(out)
        self._pump()
        if out.busy:
            out.taken = self._loop.create_future()
            await out.taken
        else:
            await asyncio.sleep(0)  # the others' turn

    def end(self, stream_id: int, trailers: Headers) -> None:
        """End the answer once its bytes are sent; more of the request is ignored."""
        out = self._out.get(stream_id)
        if out is None or out.trailers is not None:
            return
        out.trailers = trailers
        if not out.size_bytes:
            self._finish(out)
        self._flush_control()

    def look(self) -> None:
        """To be called every few seconds: ask a silent peer whether it is there, give up a dead one."""
        now = self._loop.time()
        self._resets = 0
        if self._pinged_s is not None and now - self._pinged_s >= PING_TIMEOUT_S:
            self.close()
        elif self._pinged_s is None and now - self._heard_s >= PING_AFTER_S:
            self._pinged_s = now
            self._h2.ping(b"kino\0\0\0\0")
            self._flush_control()

    def leave(self) -> None:
        """Take no new stream; those that are here go on (RFC 9113, 6.8)."""
        if self._open and not self._leaving:
            self._leaving = True
            self._control += go_away(self._h2.highest_inbound_stream_id)
            self._pump()

    def close(self) -> None:
        """End it, with whatever is on it."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._unsent, self._out = [], {}
            self._lost(self)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._heard_s, self._pinged_s = self._loop.time(), None
        try:
            others, updates = self._splitter.feed(data)
            for event in self._h2.receive_data(others) if others else ():
                self._hear(event)
            for stream_id, increment in updates:
                self._widen(stream_id, increment)
        except (ProtocolError, FrameTooLarge):
            self._give_up()
            return
        if others:
            self._flush_control()
        else:
            self._pump()

    def _hear(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event)
            case h2.events.DataReceived():
                self._take(event)
            case h2.events.StreamEnded():
                headers, body = self._requests.pop(event.stream_id, (None, None))
                if headers is not None and body is not None:
                    self._asked(self, event.stream_id, headers, bytes(body))
            case h2.events.StreamReset():
                self._resets += 1
                if self._resets > _MAX_RESETS:
                    raise ProtocolError("too many streams taken back")
                self._requests.pop(event.stream_id, None)
                self._out.pop(event.stream_id, None)
                self._reset(self, event.stream_id)
            case h2.events.RemoteSettingsChanged():
                change = event.changed_settings.get(SettingCodes.INITIAL_WINDOW_SIZE)
                if change is not None:
                    for out in list(self._out.values()):
                        out.window += change.new_value - (change.original_value or 0)
                        self._queue(out)

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        if self._leaving:
            with suppress(StreamClosedError):
                self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._out[stream_id] = Outgoing(stream_id, self._h2.remote_settings.initial_window_size)
        self._requests[stream_id] = ([(str(k), str(v)) for k, v in event.headers], bytearray())

    def _take(self, event: h2.events.DataReceived) -> None:
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        headers, body = self._requests.get(event.stream_id, (None, None))
        if headers is None or body is None:
            return
        body += event.data
        if len(body) > self._max_request_bytes:
            del self._requests[event.stream_id]
            self._asked(self, event.stream_id, headers, None)

    def _widen(self, stream_id: int, increment: int) -> None:
        """RFC 9113, 6.9. Raises `ProtocolError`."""
        if not increment:
            raise ProtocolError("a window is widened by nothing")
        if not stream_id:
            self._window += increment
            if self._window > MAX_WINDOW:
                raise ProtocolError("the connection's window is too wide")
        elif (out := self._out.get(stream_id)) is not None:
            out.window += increment
            if out.window > MAX_WINDOW:
                raise ProtocolError("a stream's window is too wide")
            self._queue(out)

    def _queue(self, out: Outgoing) -> None:
        if out.size_bytes and out.window > 0 and not out.queued:
            out.queued = True
            self._turns.append(out)

    def _flush_control(self) -> None:
        self._control += self._h2.data_to_send()
        if len(self._control) > _MAX_CONTROL_BYTES:
            self.close()
        self._pump()

    def _pump(self) -> None:
        """Send as much as kernel and windows take."""
        while self._open and not self._writing:
            if not self._unsent:
                self._unsent = self._batch()
                if not self._unsent:
                    return
            self._send_batch()

    def _batch(self) -> list[memoryview | bytes]:
        batch, size = list[memoryview | bytes](), 0
        largest = self._h2.max_outbound_frame_size
        while True:
            if self._control:
                batch.append(bytes(self._control))
                self._control.clear()
            if not self._turns or self._window <= 0 or size >= _BATCH_BYTES:
                return batch
            out = self._turns.popleft()
            out.queued = False
            turn = _TURN_BYTES if self._turns else _BATCH_BYTES
            count = min(out.size_bytes, out.window, self._window, turn)
            if count <= 0 or out.stream_id not in self._out:
                continue
            batch += data_frames(out.stream_id, out.parts, count, largest)
            size += count
            out.size_bytes -= count
            out.window -= count
            self._window -= count
            if out.size_bytes:
                self._queue(out)
                continue
            self._closing.append(out)
            if out.trailers is not None:
                self._finish(out)
                self._control += self._h2.data_to_send()

    def _send_batch(self) -> None:
        offered = self._unsent[:_MAX_BUFFERS]
        try:
            sent = self._socket.sendmsg(offered)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        taken = sent == sum(map(len, offered))
        self._unsent = self._unsent[len(offered) :] if taken else _after(self._unsent, sent)
        if not taken:
            self._writing = True
            self._loop.add_writer(self._socket, self._writable)
        elif not self._unsent:
            closing, self._closing = self._closing, []
            for out in closing:
                out.done()

    def _writable(self) -> None:
        self._writing = False
        self._loop.remove_writer(self._socket)
        self._pump()

    def _finish(self, out: Outgoing) -> None:
        assert out.trailers is not None
        self._head(out.stream_id, out.trailers, end_stream=True)
        self._out.pop(out.stream_id, None)

    def _head(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        # The peer may have taken the stream back in what is just being read; that is heard in a moment.
        with suppress(StreamClosedError):
            self._h2.send_headers(stream_id, headers, end_stream=end_stream)

    def _give_up(self) -> None:
        """The peer broke the protocol: `h2` has said so in a GOAWAY, which it gets if it reads at all."""
        self._control += self._h2.data_to_send()
        if not self._control:
            self._control += go_away(self._h2.highest_inbound_stream_id, ErrorCodes.PROTOCOL_ERROR)
        self._pump()
        self.close()


def _after(buffers: list[memoryview | bytes], sent: int) -> list[memoryview | bytes]:
    """What is left of the buffers."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[index + 1 :]]
        sent -= len(buffer)
    return []
