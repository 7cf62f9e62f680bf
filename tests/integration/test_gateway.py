from __future__ import annotations

import asyncio
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from cli.gateway import SERVICES, Gateway
from cli.up import _free_port
from kino.identity.v1 import identity_pb2, identity_pb2_grpc
from services.identity.bootstrap import build
from services.runtime.app import Running
from services.runtime.keys import open_keys
from services.runtime.status import error_of
from services.runtime.testing import bearer, service_token, serving, settings_in, user_token

ME = identity_pb2.GetUserRequest(name="users/me")


@dataclass(frozen=True, kw_only=True)
class Stack:
    url: str
    process: Running
    stub: identity_pb2_grpc.IdentityServiceStub


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    settings = settings_in(tmp_path)
    port = _free_port("127.0.0.1", 0)
    gateway = Gateway(
        tmp_path / "gateway",
        bind="127.0.0.1",
        port=port,
        jwks=open_keys(settings.keys_folder).jwks_path,
        log_path=tmp_path / "gateway.log",
    )
    await gateway.child.start()
    try:
        async with (
            serving(tmp_path, settings=settings, identity=build) as process,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            gateway.set_endpoints({"identity": [process.address]})
            stub = identity_pb2_grpc.IdentityServiceStub(channel)
            await _answering(stub)
            yield Stack(url=gateway.url, process=process, stub=stub)
    finally:
        await gateway.child.stop()


async def _answering(stub: identity_pb2_grpc.IdentityServiceStub) -> None:
    for _ in range(200):
        try:
            await stub.GetUser(ME)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the gateway did not find its endpoint")


async def refused(stack: Stack, token: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.stub.GetUser(ME, metadata=bearer(token))
    return caught.value.code(), error_of(caught.value).reason


def fetch(url: str, *, token: str | None = None, body: bytes | None = None) -> tuple[int, str, bytes]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers, data=body), timeout=5
        ) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read()


async def test_tokens_that_do_not_hold_are_refused_at_the_gateway_with_a_typed_reason(stack: Stack) -> None:
    token = user_token(stack.process, "users/abc", "viewer")
    invalid = grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"
    assert await refused(stack, token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBB")) == invalid
    assert await refused(stack, "no-token-at-all") == invalid


async def test_a_service_token_never_comes_through_the_gateway(stack: Stack) -> None:
    token = service_token(stack.process, "playback")
    assert await refused(stack, token) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_calls_and_errors_are_json_for_those_who_ask_in_json(stack: Stack) -> None:
    person = {
        "email": "ada@example.org",
        "password": "correct horse battery",
        "displayName": "Ada",
        "requestId": "6e2a3f60-6c4d-4a5b-9d6e-0f7a6a0f1c11",
    }
    status, kind, body = await asyncio.to_thread(
        fetch, f"{stack.url}/v1/users:signUp", body=json.dumps(person).encode()
    )
    assert (status, kind) == (200, "application/json")
    session = json.loads(body)["session"]
    status, _, body = await asyncio.to_thread(fetch, f"{stack.url}/v1/users/me", token=session["accessToken"])
    assert (status, json.loads(body)["user"]["email"]) == (200, "ada@example.org")

    status, kind, body = await asyncio.to_thread(fetch, f"{stack.url}/v1/users/me")
    assert (status, kind) == (401, "application/json")
    assert json.loads(body)["details"][0]["reason"] == "UNAUTHENTICATED"
    status, kind, body = await asyncio.to_thread(fetch, f"{stack.url}/v1/users/me", token="bad")
    assert (status, json.loads(body)["details"][0]["reason"]) == (401, "TOKEN_INVALID")


async def test_an_address_that_is_nothing_says_so(stack: Stack) -> None:
    for path in ("/v2/what", "/v1/what", "/kino.identity.v2.IdentityService/GetUser"):
        status, _, body = await asyncio.to_thread(fetch, f"{stack.url}{path}")
        assert (status, b"nothing at this address" in body) == (404, True)
    status, _, _ = await asyncio.to_thread(fetch, f"{stack.url}/v1/users/%2e%2e%2fkeys")
    assert status == 400


def ask(url: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, Message]:
    """The status and the headers of an answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.msg
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("http://localhost:3000", "http://localhost:3000"), ("https://elsewhere.example", None)],
)
async def test_only_pages_of_allowed_origins_read_answers_of_the_json_side(
    stack: Stack, origin: str, allowed: str | None
) -> None:
    page = {"origin": origin}
    for path in ("/v1/users/me", "/v1/nothing"):
        _, got = await asyncio.to_thread(ask, stack.url, "GET", path, page)
        assert (got["access-control-allow-origin"], got["vary"]) == (allowed, "origin")
    asking = page | {
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization,range",
    }
    status, got = await asyncio.to_thread(ask, stack.url, "OPTIONS", "/v1/users/me", asking)
    assert (status == 200, got["access-control-allow-origin"]) == (allowed is not None, allowed)


async def test_a_service_without_endpoints_is_unavailable_and_others_go_on(stack: Stack) -> None:
    status, _, _ = await asyncio.to_thread(fetch, f"{stack.url}/v1/plans")
    assert status == 503
    assert (await refused(stack, ""))[0] is grpc.StatusCode.UNAUTHENTICATED


def test_every_service_of_the_contracts_has_a_cluster_and_a_route() -> None:
    root = Path(__file__).resolve().parents[2]
    contracts = {path.parts[-3] for path in root.glob("proto/kino/*/v1/*.proto")} - {"common", "media"}
    assert contracts == set(SERVICES)
    config = (root / "envoy.yaml").read_text()
    for name in SERVICES:
        assert f"./endpoints/{name}.yaml" in config
        for contract in root.glob(f"proto/kino/{name}/v1/*.proto"):
            for service in re.findall(r"^service (\w+)", contract.read_text(), re.MULTILINE):
                route = f'prefix: "/kino.{name}.v1.{service}/"}}\n                route: {{cluster: {name}, '
                assert route in config
                assert f"              - kino.{name}.v1.{service}\n" in config
