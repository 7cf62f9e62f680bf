"""The event loop of a process that serves: asyncio's own, with one thing put right for gRPC.

gRPC's thread tells the loop of each thing done by a byte in a socket, and its handler takes one byte in each
round of the loop, however many things are done. Where more than one is done in a round, as under any load,
bytes are left over. With 277 of them the socket is full and the thread waits for room, so that one thing is
told in each round: the next new call comes behind every message that was taken before it. Measured with 2,000
streams: calls were taken up 2 to 40 a second. So all bytes but one are taken before gRPC's handler runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_Ts = TypeVarTuple("_Ts")
#: gRPC's handler, by its name in `grpc/_cython/_cygrpc/aio/completion_queue.pyx.pxi`.
_GRPC_HANDLER = "_handle_events"
#: More than the socket holds.
_MANY_BYTES = 1 << 16


class ServingLoop(asyncio.SelectorEventLoop):
    """Take it for processes that serve gRPC, or call it much."""

    #: Whether gRPC's handler was found. If not, gRPC tells the loop in another way now.
    knows_grpc = False

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[Unpack[_Ts]], Any], *args: *_Ts) -> None:
        """As asyncio's."""
        inner = callback.func if isinstance(callback, partial) else callback
        if getattr(inner, "__name__", "") == _GRPC_HANDLER and isinstance(fd, socket.socket):
            self.knows_grpc = True
            super().add_reader(fd, _after_the_others, fd, partial(callback, *args))
        else:
            super().add_reader(fd, callback, *args)


def _after_the_others(wakes: socket.socket, handle: Callable[[], Any]) -> None:
    """Take all bytes that wake but one, which is the handler's."""
    count = len(wakes.recv(_MANY_BYTES, socket.MSG_PEEK))
    if count > 1:
        wakes.recv(count - 1)
    handle()
