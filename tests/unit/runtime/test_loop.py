from __future__ import annotations

import asyncio
import socket

import grpc
import grpc.aio

from services.runtime.loop import ServingLoop


def _handlers() -> grpc.GenericRpcHandler:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    return grpc.method_handlers_generic_handler("a.B", {"C": grpc.unary_unary_rpc_method_handler(echo)})


def test_grpc_is_recognised_and_serves() -> None:
    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a.B/C")
            sent = [b"%d" % number for number in range(300)]
            assert await asyncio.gather(*map(call, sent)) == sent
        await server.stop(None)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ServingLoop)
        assert loop.knows_grpc

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(serve())


def test_all_bytes_that_wake_are_taken_at_once() -> None:
    async def wake() -> list[int]:
        loop, taken, done = asyncio.get_running_loop(), list[int](), asyncio.Event()
        read, write = socket.socketpair()

        def _handle_events() -> None:
            taken.append(len(read.recv(1)))
            done.set()

        with read, write:
            loop.add_reader(read, _handle_events)
            for _ in range(100):
                write.send(b"1")
            await done.wait()
            write.send(b"1")
            done.clear()
            await done.wait()
            loop.remove_reader(read)
            read.setblocking(False)
            try:
                left = read.recv(100)
            except BlockingIOError:
                left = b""
        return [*taken, len(left)]

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        assert runner.run(wake()) == [1, 1, 0]


def test_other_readers_are_left_as_they_are() -> None:
    async def wake() -> bytes:
        loop, read = asyncio.get_running_loop(), asyncio.Event()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            loop.add_reader(ours, read.set)
            theirs.send(b"123")
            await read.wait()
            loop.remove_reader(ours)
            return ours.recv(9)

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        assert runner.run(wake()) == b"123"
