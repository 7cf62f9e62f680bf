from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime import metrics
from services.runtime.app import Context, Running, ServiceApp
from services.runtime.auth import maybe_principal, principal, require_user
from services.runtime.call import remaining_s, request_id
from services.runtime.errors import Code, NotFound, RemoteError, ResourceExhausted, Violation
from services.runtime.server import PortInUse
from services.runtime.status import error_of
from services.runtime.testing import bearer, channel_of, service_token, serving, settings_in, user_token
from tests.unit.runtime.probe import OPEN_SERVICE, SERVICE, Note, ProbeStub, echo, probe


async def refused(call: Any) -> RemoteError:
    return (await received(call))[1]


async def received(call: Any) -> tuple[list[str], RemoteError]:
    texts: list[str] = []
    try:
        if hasattr(call, "__aiter__"):
            async for note in call:
                texts.append(note.text)
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return texts, error_of(error)
    pytest.fail("the call succeeded")


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, probe=probe(HANDLER.answer, HANDLER.stream)) as running:
        yield running


@pytest.fixture(params=["gRPC's port", "the port of media"])
def media(request: pytest.FixtureRequest) -> str:
    """The paths of methods that are asked on the port of media."""
    return "/nothing" if request.param == "gRPC's port" else "/"


@pytest.fixture
async def stub(media: str, process: Running) -> AsyncIterator[ProbeStub]:
    async with channel_of(process, media=media) as channel:
        yield ProbeStub(channel)


class Handler:
    """What the served methods do in one test."""

    def __init__(self) -> None:
        self.answer_with: Callable[[Any, Any], Awaitable[Any]] = echo
        self.stream_with: Callable[[Any, Any], AsyncIterator[Any]] = none

    async def answer(self, request: Any, context: Any) -> Any:
        return await self.answer_with(request, context)

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in self.stream_with(request, context):
            yield answer


async def none(request: Any, context: Any) -> AsyncIterator[Any]:
    for _ in range(0):
        yield Note()


HANDLER = Handler()


@pytest.fixture(autouse=True)
def handler() -> Handler:
    HANDLER.__init__()  # type: ignore[misc]
    return HANDLER


async def test_a_typed_error_reaches_the_client_whole(stub: ProbeStub, handler: Handler) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise ResourceExhausted("uploads", 1500)

    handler.answer_with = fail
    error = await refused(stub.Public(Note()))
    assert (error.code, error.reason, error.retry_after_ms) == (
        Code.RESOURCE_EXHAUSTED,
        "RESOURCE_EXHAUSTED",
        1500,
    )
    assert (await refused(stub.Collect(iter([Note(text="a")])))).reason == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("method", ["Repeat", "Chat"])
async def test_an_error_in_mid_stream_comes_after_what_was_sent(
    method: str, stub: ProbeStub, handler: Handler
) -> None:
    async def two_then_fail(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Note(text="a")
        yield Note(text="b")
        raise NotFound("titles/x")

    handler.stream_with = two_then_fail
    call = stub.Repeat(Note()) if method == "Repeat" else stub.Chat(iter([Note()]))
    texts, error = await received(call)
    assert (texts, error.metadata) == (["a", "b"], {"resource": "titles/x"})


async def test_an_unforeseen_error_shows_an_incident_and_nothing_else(
    stub: ProbeStub, handler: Handler
) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise ValueError("password hunter2 in /etc/shadow")

    handler.answer_with = fail
    with structlog.testing.capture_logs() as logs:
        error = await refused(stub.Public(Note()))
    assert (error.code, error.reason) == (Code.INTERNAL, "INTERNAL")
    assert "hunter2" not in str(error)
    (incident,) = [entry for entry in logs if entry["event"] == "incident"]
    assert error.metadata == {"incident": incident["incident"]}
    assert isinstance(incident["exc_info"], ValueError)


async def test_a_time_out_inside_a_handler_is_not_the_calls_deadline(
    stub: ProbeStub, handler: Handler
) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise TimeoutError

    handler.answer_with = fail
    assert (await refused(stub.Public(Note()))).reason == "INTERNAL"


async def test_a_handler_may_abort_by_itself(stub: ProbeStub, handler: Handler) -> None:
    async def abort(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.ABORTED, "by hand")

    handler.answer_with = abort
    error = await refused(stub.Public(Note()))
    assert (error.code, error.reason, error.message) == (Code.ABORTED, "ABORTED", "by hand")


async def test_a_cancelled_call_ends_the_handler_at_once(stub: ProbeStub, handler: Handler) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            entered.set()
            yield Note(text="a")
            await asyncio.Event().wait()
        finally:
            left.set()

    handler.stream_with = endless
    call = stub.Repeat(Note())
    assert await call.read() == Note(text="a")
    call.cancel()
    await asyncio.wait_for(left.wait(), 10)
    assert entered.is_set()


async def test_a_client_that_stops_reading_and_cancels_frees_the_handler(
    stub: ProbeStub, handler: Handler
) -> None:
    left = asyncio.Event()

    async def flood(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield Note(text="x" * 1_000_000)
        finally:
            left.set()

    handler.stream_with = flood
    call = stub.Repeat(Note())
    await call.read()
    call.cancel()
    await asyncio.wait_for(left.wait(), 10)


async def test_clients_that_leave_in_the_middle_of_a_message_are_no_incidents(
    stub: ProbeStub, handler: Handler
) -> None:
    # About one in fourteen of those who leave is in the middle of a message.
    left = asyncio.Semaphore(0)

    async def flood(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield Note(text="x" * 1_000_000)
        finally:
            left.release()

    handler.stream_with = flood
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            calls = [stub.Repeat(Note()) for _ in range(50)]
            for call in calls:
                await call.read()
            for call in calls:
                call.cancel()
            for _ in calls:
                await asyncio.wait_for(left.acquire(), 10)
    ended = [(entry["event"], entry.get("code")) for entry in logs if entry["event"] in ("call", "incident")]
    assert set(ended) == {("call", "CANCELLED")}


async def test_calls_that_arrive_all_at_once_are_all_answered(media: str, process: Running) -> None:
    # More than gRPC lets wait by itself; all are on their way before the server takes up the first.
    texts = [str(number) for number in range(5000)]
    async with AsyncExitStack() as stack:
        stubs = [
            ProbeStub(await stack.enter_async_context(channel_of(process, media=media))) for _ in range(4)
        ]
        calls = [stubs[number % 4].Public(Note(text=text)) for number, text in enumerate(texts)]
        answers = await asyncio.gather(*calls)
    assert [answer.text for answer in answers] == texts


async def test_a_request_that_breaks_its_contract_is_refused_by_field(stub: ProbeStub) -> None:
    bad = Note(inner=[Note(text="fine"), Note(text="far too long")])
    for error in [
        await refused(stub.Public(bad)),
        await refused(stub.Collect(iter([Note(text="fine"), bad]))),
        await refused(stub.Repeat(bad)),
    ]:
        assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "VALIDATION_FAILED")
        assert error.violations == (
            Violation(field="inner[1].text", description="must be at most 8 characters"),
        )


async def test_each_message_of_a_stream_is_checked_as_it_is_read(stub: ProbeStub, handler: Handler) -> None:
    async def repeat(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield request

    handler.stream_with = repeat
    notes = [Note(text="fine"), Note(text="far too long"), Note(text="late")]
    texts, error = await received(stub.Chat(iter(notes)))
    assert (texts, error.reason) == (["fine"], "VALIDATION_FAILED")


@pytest.mark.parametrize(
    ("method", "passing"),
    [
        ("Public", ["nobody", "", "publisher", "operator", "service"]),
        ("Lease", ["nobody", "", "publisher", "operator", "service"]),
        ("Viewer", ["", "publisher", "operator", "service"]),
        ("Publisher", ["publisher", "operator", "service"]),
        ("Operator", ["operator", "service"]),
        ("Service", ["service"]),
    ],
)
async def test_the_contract_says_who_may_call(
    method: str, passing: list[str], process: Running, stub: ProbeStub
) -> None:
    tokens = {
        role: user_token(process, "users/a", *([role] if role else []))
        for role in ("", "publisher", "operator")
    }
    tokens["service"] = service_token(process, "playback")
    outcomes = {}
    for who in ("nobody", *tokens):
        metadata = bearer(tokens[who]) if who in tokens else ()
        try:
            await getattr(stub, method)(Note(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            outcomes[who] = error.code()
        else:
            outcomes[who] = grpc.StatusCode.OK
    refusal = {"nobody": grpc.StatusCode.UNAUTHENTICATED}
    assert outcomes == {
        who: grpc.StatusCode.OK if who in passing else refusal.get(who, grpc.StatusCode.PERMISSION_DENIED)
        for who in outcomes
    }


async def test_handlers_know_their_caller(process: Running, stub: ProbeStub, handler: Handler) -> None:
    async def who(request: Any, context: Any) -> Any:
        require_user("users/ann/profiles/p")
        return Note(text=principal().session)

    handler.answer_with = who
    token = user_token(process, "users/ann", session="s1")
    assert (await stub.Viewer(Note(), metadata=bearer(token))).text == "s1"
    error = await refused(stub.Viewer(Note(), metadata=bearer(user_token(process, "users/bob"))))
    assert (error.reason, error.metadata) == ("NOT_OWNER", {"resource": "users/ann/profiles/p"})


async def test_one_calls_caller_is_not_anothers(process: Running, stub: ProbeStub, handler: Handler) -> None:
    async def who(request: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        caller = maybe_principal()
        return Note(text=caller.subject[6:] if caller else "-")

    handler.answer_with = who
    names = ["a", "-", "b", "-", "c"] * 8
    calls = [
        stub.Public(Note(), metadata=bearer(user_token(process, f"users/{name}")) if name != "-" else ())
        for name in names
    ]
    assert [answer.text for answer in await asyncio.gather(*calls)] == names


async def test_a_bad_token_matters_only_where_one_is_needed(stub: ProbeStub) -> None:
    assert await stub.Public(Note(text="a"), metadata=bearer("old")) == Note(text="a")
    assert (await refused(stub.Viewer(Note(), metadata=bearer("old")))).reason == "TOKEN_INVALID"


async def test_a_call_without_a_deadline_gets_one(media: str, tmp_path: Path, handler: Handler) -> None:
    async def hang(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    settings = settings_in(tmp_path, unary_deadline_s=0.05)
    async with (
        serving(tmp_path, settings=settings, probe=probe(hang)) as process,
        channel_of(process, media=media) as channel,
    ):
        assert (await refused(ProbeStub(channel).Public(Note()))).reason == "DEADLINE_EXCEEDED"


async def test_a_clients_deadline_is_known_to_the_handler_and_not_shortened(
    stub: ProbeStub, handler: Handler
) -> None:
    seen: list[Any] = []

    async def look(request: Any, context: Any) -> Any:
        seen.append(remaining_s())
        return request

    handler.answer_with = look
    await stub.Public(Note(), timeout=3_000)
    await stub.Public(Note())
    long, default = seen
    assert 30 < long < 4_000  # the header carries few digits, rounded up
    assert 10 < default <= 30


async def test_a_request_id_is_taken_from_the_client_or_made(stub: ProbeStub, handler: Handler) -> None:
    seen: list[Any] = []

    async def look(request: Any, context: Any) -> Any:
        seen.append(request_id())
        return request

    handler.answer_with = look
    await stub.Public(Note(), metadata=(("x-request-id", "from-gateway"),))
    await stub.Public(Note())
    assert seen[0] == "from-gateway"
    assert seen[1] not in (None, "", "from-gateway")


@pytest.mark.parametrize("how", ["raised", "aborted by hand", "unforeseen"])
async def test_calls_are_counted_by_their_code(how: str, stub: ProbeStub, handler: Handler) -> None:
    async def fail(request: Any, context: Any) -> Any:
        if how == "aborted by hand":
            await context.abort(grpc.StatusCode.NOT_FOUND, "by hand")
        raise NotFound("titles/x") if how == "raised" else LookupError

    def count() -> float:
        labels = {"rpc_service": SERVICE, "rpc_method": "Public", "rpc_grpc_status_code": code}
        return metrics.REGISTRY.get_sample_value("rpc_server_call_duration_seconds_count", labels) or 0

    code = "INTERNAL" if how == "unforeseen" else "NOT_FOUND"
    handler.answer_with = fail
    before = count()
    await refused(stub.Public(Note()))
    # A call that is aborted by hand is answered before it is counted.
    for _ in range(1000):
        if count() > before:
            break
        await asyncio.sleep(0.01)
    assert count() == before + 1
    assert b"rpc_server_call_duration_seconds_count" in metrics.render()


async def test_a_handler_may_send_bytes_it_serialised_itself(media: str, tmp_path: Path) -> None:
    async def raw(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield Note(text="a").SerializeToString()
        yield Note(text="b").SerializeToString()

    def register(server: grpc.aio.Server) -> None:
        handler = grpc.unary_stream_rpc_method_handler(
            raw, request_deserializer=Note.FromString, response_serializer=lambda message: message
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Repeat": handler}),))

    async def build(ctx: Context) -> ServiceApp:
        return ServiceApp(name="probe", grpc_services=[SERVICE], register=register, streams=True)

    async with serving(tmp_path, probe=build) as process, channel_of(process, media=media) as channel:
        assert [note.text async for note in ProbeStub(channel).Repeat(Note())] == ["a", "b"]


async def test_a_handler_may_write_to_its_context(media: str, tmp_path: Path) -> None:
    async def write(request: Any, context: Any) -> None:
        await context.write(Note(text="a"))
        raise NotFound("titles/x")

    async with (
        serving(tmp_path, probe=probe(echo, cast(Any, write))) as process,
        channel_of(process, media=media) as channel,
    ):
        texts, error = await received(ProbeStub(channel).Repeat(Note()))
        assert (texts, error.reason) == (["a"], "NOT_FOUND")


async def test_a_contract_that_does_not_say_who_may_call_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"UndeclaredService\.Call declares no"):
        async with serving(tmp_path, probe=probe(services=(OPEN_SERVICE,))):
            pass


async def test_a_method_nobody_serves_is_unimplemented(media: str, process: Running) -> None:
    async with channel_of(process, media=media) as channel:
        nothing: Any = channel.unary_unary("/kino.probe.v1.ProbeService/Nothing")
        assert (await refused(nothing(b""))).code is Code.UNIMPLEMENTED


async def test_health_is_told_to_anybody_per_service(media: str, process: Running) -> None:
    async with channel_of(process, media=media) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        error = await refused(health.Check(health_pb2.HealthCheckRequest(service="kino.nobody")))
        assert error.code is Code.NOT_FOUND


async def test_reflection_lists_the_services(media: str, process: Running) -> None:
    async with channel_of(process, media=media) as channel:
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
        answers = [answer async for answer in call]
        names = {service.name for answer in answers for service in answer.list_services_response.service}
        assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_at_the_end_health_turns_first_and_calls_in_flight_finish(media: str, tmp_path: Path) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        arrived.set()
        await go.wait()
        return request

    async with serving(tmp_path, probe=probe(slow)) as process, channel_of(process, media=media) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = asyncio.ensure_future(ProbeStub(channel).Public(Note(text="a")))
        await arrived.wait()
        drain = asyncio.create_task(process.server.drain(wait_s=0.0, grace_s=10.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        go.set()
        assert await call == Note(text="a")
        await drain


async def test_a_port_in_use_is_named(tmp_path: Path, process: Running) -> None:
    settings = settings_in(tmp_path / "b", grpc_port=process.server.port)
    with pytest.raises(PortInUse, match=f"127.0.0.1:{process.server.port} is in use"):
        async with serving(tmp_path, settings=settings, probe=probe()):
            pass
