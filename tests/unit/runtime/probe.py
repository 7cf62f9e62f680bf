"""A small gRPC service of its own contract, for tests of what surrounds every handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from buf.validate import validate_pb2
from kino.common.v1 import access_pb2
from services.runtime.app import Build, Context, ServiceApp

SERVICE = "kino.probe.v1.ProbeService"
OPEN_SERVICE = "kino.probe.v1.UndeclaredService"


def _contract() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="kino/probe/v1/probe.proto",
        package="kino.probe.v1",
        syntax="proto3",
        dependency=["kino/common/v1/access.proto", "buf/validate/validate.proto"],
    )
    note = file.message_type.add(name="Note")
    field = note.field.add(name="text", number=1, type=9, label=1)
    field.options.Extensions[validate_pb2.field].string.max_len = 8
    inner = note.field.add(name="inner", number=2, type=11, label=3, type_name=".kino.probe.v1.Note")
    assert inner is not None
    service = file.service.add(name="ProbeService")
    kinds = {"Public": (0, 0), "Collect": (1, 0), "Repeat": (0, 1), "Chat": (1, 1)}
    for name in (
        "Public",
        "Viewer",
        "Publisher",
        "Operator",
        "Service",
        "Lease",
        "Collect",
        "Repeat",
        "Chat",
    ):
        method = service.method.add(
            name=name, input_type=".kino.probe.v1.Note", output_type=".kino.probe.v1.Note"
        )
        method.client_streaming, method.server_streaming = map(bool, kinds.get(name, (0, 0)))
        rule = f"ACCESS_{name.upper()}"
        number = dict(access_pb2.Access.items()).get(rule, access_pb2.ACCESS_PUBLIC)
        method.options.Extensions[access_pb2.access] = number
    bare = file.service.add(name="UndeclaredService")
    bare.method.add(name="Call", input_type=".kino.probe.v1.Note", output_type=".kino.probe.v1.Note")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kino.probe.v1.Note"))


Note: Any = _contract()
Handler = Callable[[Any, Any], Awaitable[Any]]


async def echo(request: Any, context: Any) -> Any:
    return request


def probe(
    answer: Handler = echo,
    stream: Callable[[Any, Any], AsyncIterator[Any]] | None = None,
    *,
    services: tuple[str, ...] = (SERVICE,),
    **parts: Any,
) -> Build:
    """A `build` whose unary methods call `answer` and whose streaming ones `stream`."""

    async def gather(requests: Any, context: Any) -> Any:
        texts = [request.text async for request in requests]
        return await answer(Note(text=",".join(texts)), context)

    def register(server: grpc.aio.Server) -> None:
        codec = {"request_deserializer": Note.FromString, "response_serializer": Note.SerializeToString}
        unary = ("Public", "Viewer", "Publisher", "Operator", "Service", "Lease")
        handlers = {name: grpc.unary_unary_rpc_method_handler(answer, **codec) for name in unary}
        handlers["Collect"] = grpc.stream_unary_rpc_method_handler(gather, **codec)
        if stream is not None:
            handlers["Repeat"] = grpc.unary_stream_rpc_method_handler(stream, **codec)
            handlers["Chat"] = grpc.stream_stream_rpc_method_handler(stream, **codec)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def build(ctx: Context) -> ServiceApp:
        return ServiceApp(name="probe", grpc_services=services, register=register, streams=True, **parts)

    return build


class ProbeStub:
    """The client's side."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        codec = {"request_serializer": Note.SerializeToString, "response_deserializer": Note.FromString}
        path = f"/{SERVICE}/"
        for name in ("Public", "Viewer", "Publisher", "Operator", "Service", "Lease"):
            setattr(self, name, channel.unary_unary(path + name, **codec))
        self.Collect = channel.stream_unary(path + "Collect", **codec)
        self.Repeat = channel.unary_stream(path + "Repeat", **codec)
        self.Chat = channel.stream_stream(path + "Chat", **codec)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
